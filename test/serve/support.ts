/** A server with small steps on a real port: what the tests of src/serve talk to over HTTP. */
import { Effect, Exit, Schema, Scope } from "effect";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { noServices } from "../../src/pipeline/environment.ts";
import { listen } from "../../src/serve/listen.ts";
import { type Handler, makeHandler, type ServerOptions } from "../../src/serve/handler.ts";
import { PathString } from "../../src/steps/path_string.ts";
import { Port } from "../../src/steps/port.ts";
import { report } from "../../src/steps/progress.ts";
import { Step } from "../../src/steps/step.ts";

const words = Port.json("words", "a text", Schema.decodeUnknownSync(Schema.String));

export interface Gate {
  /** Steps called "wait" that run now, and all that ever ran, by their label. */
  readonly running: Set<string>;
  readonly ran: string[];
  /** Lets them end. */
  open: boolean;
}

/** A step that goes on until its gate opens, one that says something, one that reads a file and one that fails. */
export const stepsWith = (gate: Gate) => [
  Step.make("wait", {
    version: 1,
    description: "Goes on until it may end.",
    settings: Schema.Struct({ label: Schema.String }),
    inputs: {},
    outputs: { words },
    run: (_, { label }) =>
      Effect.gen(function* () {
        gate.running.add(label);
        gate.ran.push(label);
        for (let i = 1; !gate.open; i++) {
          yield* report({ done: i, total: 1e9 });
          yield* Effect.sleep(5);
        }
        return { words: label };
      }).pipe(Effect.ensuring(Effect.sync(() => gate.running.delete(label)))),
  }),
  Step.make("say", {
    version: 1,
    description: "Says something.",
    settings: Schema.Struct({ what: Schema.String, fat: Schema.optionalKey(Schema.Int) }),
    inputs: {},
    outputs: { words },
    run: (_, { what, fat = 0 }) =>
      Effect.gen(function* () {
        const held: Uint8Array[] = [];
        // Filled, so that the memory is really taken.
        for (let i = 0; i < fat; i++) {
          held.push(new Uint8Array(1e7).fill(i + 1));
          yield* Effect.sleep(5);
        }
        yield* report({ done: 1, total: 1 });
        return { words: what + "!".repeat(held.length > 1e9 ? 1 : 0) };
      }),
  }),
  Step.make("read", {
    version: 1,
    description: "Reads a file.",
    settings: Schema.Struct({ file: PathString, other: Schema.optionalKey(PathString) }),
    inputs: {},
    outputs: { words },
    files: ({ file }) => [file],
    run: (_, { file }) => Effect.fail(new Error(`${file}: it reads ill\n    at ${import.meta.url}:1:1`)),
  }),
];

export const newGate = (): Gate => ({ running: new Set(), ran: [], open: false });

/** A pipeline of one step, as JSON. */
export const one = (use: string, settings: unknown) => ({
  sau: 1,
  name: "test",
  steps: { it: { use, with: settings } },
});

export interface Server {
  readonly url: string;
  readonly data: string;
  readonly gate: Gate;
  readonly handler: Handler;
  /** Sends a pipeline (or another body) to /run. */
  readonly run: (body: unknown, more?: RequestInit & { headers?: Record<string, string> }) => Promise<Response>;
  readonly stop: () => Promise<void>;
}

/** `keep`: a data folder that another server left. */
export const serve = async (options: Partial<ServerOptions> = {}, keep?: string): Promise<Server> => {
  const data = keep ?? mkdtempSync(join(tmpdir(), "sau-serve-"));
  const gate = newGate();
  const models = join(data, "models");
  mkdirSync(models, { recursive: true });
  writeFileSync(join(models, "inside.txt"), "inside\n");
  const handler = makeHandler(
    { steps: stepsWith(gate), environment: Effect.succeed(noServices()) },
    { data, roots: [models], ...options },
  );
  const scope = Scope.makeUnsafe();
  const url = await Effect.runPromise(Scope.provide(listen(handler, { host: "127.0.0.1", port: 0 }), scope));
  return {
    url,
    data,
    gate,
    handler,
    run: (body, more = {}) =>
      fetch(`${url}/run`, {
        method: "POST",
        body: JSON.stringify(body),
        ...more,
        headers: { "content-type": "application/json", ...more.headers },
      }),
    stop: async () => {
      gate.open = true;
      await handler.dispose();
      await Effect.runPromise(Scope.close(scope, Exit.void));
      if (keep === undefined) rmSync(data, { recursive: true, force: true });
    },
  };
};

/** An answer whose shape is what the test is about. */
// deno-lint-ignore no-explicit-any
export type Json = any;

/** The events of an NDJSON answer. */
export const events = async (response: Response): Promise<Json[]> =>
  (await response.text()).split("\n").filter((line) => line !== "").map((line) => JSON.parse(line));

/** Waits for something to come true; the test's own limit of time ends it otherwise. */
export const until = async (holds: () => boolean | Promise<boolean>): Promise<void> => {
  while (!(await holds())) await new Promise((done) => setTimeout(done, 5));
};
