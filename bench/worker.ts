/**
 * Our side of a bench as a process, `SCRIPT DEVICE MODEL`: requests come in on standard input, one JSON a line, and each is
 * answered with the milliseconds it took. The first is {"do":"prepare","file":F}, whose answer the script gives itself.
 */
import { createInterface } from "node:readline";
import process from "node:process";
import { Effect, Schema, type Scope } from "effect";
import { Device, Runtime } from "../src/runtime/mod.ts";

export const answer = (value: unknown) => Effect.sync(() => process.stdout.write(JSON.stringify(value) + "\n"));

const Prepare = Schema.Struct({ do: Schema.Literal("prepare"), file: Schema.String });

/** Answers requests until the input ends. `work` is what a request asks to be timed. */
export const serve = async <A, P>(
  request: Schema.Codec<A, unknown>,
  prepare: (folder: string, file: string) => Effect.Effect<P, unknown, Runtime | Scope.Scope>,
  work: (prepared: P, request: A) => Effect.Effect<void, unknown> | undefined,
): Promise<never> => {
  const [device, folder] = process.argv.slice(2);
  const program = Effect.gen(function* () {
    let prepared: P | undefined;
    const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
    while (true) {
      const { value: line, done } = yield* Effect.promise(() => lines.next());
      if (done) return;
      const json: unknown = JSON.parse(line);
      if (Schema.is(Prepare)(json)) {
        prepared = yield* prepare(folder, json.file);
        continue;
      }
      const asked = yield* Schema.decodeUnknownEffect(request)(json);
      const timed = prepared === undefined ? undefined : work(prepared, asked);
      if (timed === undefined) throw new Error(`nothing is prepared for ${line}`);
      const begin = performance.now();
      yield* timed;
      yield* answer({ ms: performance.now() - begin });
    }
  });
  const layer = Runtime.layer(Schema.decodeUnknownSync(Device)(device));
  await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(layer)));
  process.exit(0);
};
