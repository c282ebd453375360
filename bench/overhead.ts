/**
 * What a pipeline costs over calling its steps by hand: pipelines/sau.yaml through `loadFile` and `run` with an empty
 * cache, against the same steps called one after another, in turns in one process.
 *
 *     SAU_MODULES=… npx -y deno@2.9.6 run -A bench/overhead.ts native 3 [NAME=VALUE …]
 *
 * Prints the seconds of each, their ratio, and what of a run is not the steps' own programs (planning, hashing files,
 * keeping results), which a busy machine does not blur.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { Effect, Schema } from "effect";
import { openCache } from "../src/pipeline/cache.ts";
import { layerEnvironment } from "../src/pipeline/environment.ts";
import { loadFile } from "../src/pipeline/load.ts";
import { run } from "../src/pipeline/run.ts";
import { Device, Runtime } from "../src/runtime/mod.ts";
import { builtinSteps } from "../src/steps/registry.ts";

const [device = "native", rounds = "3", ...overrides] = process.argv.slice(2);
const layer = Runtime.layer(Schema.decodeUnknownSync(Device)(device));
const file = new URL("../pipelines/sau.yaml", import.meta.url).pathname;
const seconds = (since: number) => (performance.now() - since) / 1000;

const program = Effect.gen(function* () {
  const environment = yield* layerEnvironment(layer, { kind: device, report: () => null });
  yield* environment.open;

  const piped = Effect.gen(function* () {
    const folder = yield* Effect.promise(() => mkdtemp(join(tmpdir(), "sau-overhead-")));
    const begin = performance.now();
    const pipeline = yield* loadFile(file, { steps: builtinSteps, overrides });
    const result = yield* run(pipeline, { cache: openCache(folder), environment });
    const all = seconds(begin);
    yield* Effect.promise(() => rm(folder, { recursive: true }));
    return { all, programs: result.steps.reduce((sum, s) => sum + s.seconds, 0) };
  });

  const byHand = Effect.gen(function* () {
    const { steps } = yield* loadFile(file, { steps: builtinSteps, overrides });
    const begin = performance.now();
    const values = new Map<string, Readonly<Record<string, unknown>>>();
    for (const { id, step, settings, inputs } of steps) {
      const given = Object.fromEntries(
        Object.entries(inputs).map(([name, wire]) => [name, values.get(wire.step)?.[wire.output]]),
      );
      values.set(id, yield* environment.provide(step.program(given, settings)));
    }
    return seconds(begin);
  });

  const pairs: { piped: number; hand: number; own: number }[] = [];
  for (let i = 0; i < Number(rounds); i++) {
    // Whoever goes first finds a colder machine, so they take turns.
    const first = i % 2 === 0 ? yield* piped : undefined;
    const hand = yield* byHand;
    const { all, programs } = first ?? (yield* piped);
    pairs.push({ piped: all, hand, own: all - programs });
    console.log(
      `pipeline ${all.toFixed(2)} s, by hand ${hand.toFixed(2)} s, ratio ${(all / hand).toFixed(3)}; ` +
        `not the steps' own: ${(1000 * (all - programs)).toFixed(0)} ms, ${(100 * (all / programs - 1)).toFixed(2)} %`,
    );
  }
  const middle = (of: (p: typeof pairs[number]) => number) => pairs.map(of).sort((a, b) => a - b)[pairs.length >> 1];
  console.log(
    `${pairs.length} rounds on ${device}; medians: ratio ${middle((p) => p.piped / p.hand).toFixed(3)}, ` +
      `not the steps' own ${(100 * middle((p) => p.own / (p.piped - p.own))).toFixed(2)} %`,
  );
});
await Effect.runPromise(Effect.scoped(program));
