/** Small real steps for the tests of the pipeline and of the command line: numbers, fields and a verdict. */
import { Effect, Schema } from "effect";
import { appendFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Verdict } from "../../src/steps/errors.ts";
import { PathString } from "../../src/steps/path_string.ts";
import { Port } from "../../src/steps/port.ts";
import { report } from "../../src/steps/progress.ts";
import { Step } from "../../src/steps/step.ts";
import { type Tensor, tensor } from "../../src/tensor/tensor.ts";

const withDefault = Schema.withDecodingDefaultKey;

export const number = Port.json("number", "a number", (json) => {
  if (typeof json !== "number") throw new Error(`${json} is no number`);
  return json;
});
export const field = Port.make<Tensor>({
  kind: "field",
  description: "a row of numbers",
  encode: (values) => ({ json: {}, tensors: { values } }),
  decode: (stored) => stored.tensors.values,
});
export const verdict = Port.json("verdict", "what was found", Schema.decodeUnknownSync(Verdict));
export const model = Port.make<{ readonly weights: number }>({
  kind: "model",
  description: "a model",
  encode: (value) => ({ json: value, tensors: {} }),
  decode: (stored) => Schema.decodeUnknownSync(Schema.Struct({ weights: Schema.Number }))(stored.json),
  save: (value, dir, options) =>
    Effect.tryPromise(async () => {
      await mkdir(dir);
      await writeFile(join(dir, "weights.json"), JSON.stringify({ ...value, ...options }));
    }),
});

/** Reads a file of numbers. `log` gets a line per run, so that a test sees which steps really ran. */
export const load = Step.make("load", {
  version: 1,
  description: "Reads numbers from a file.",
  settings: Schema.Struct({
    file: PathString.annotate({ description: "numbers, one a line" }),
    log: PathString.pipe(withDefault(Effect.succeed("/dev/null"))),
  }),
  inputs: {},
  outputs: { field },
  files: ({ file }) => [file],
  run: (_, { file, log }) =>
    Effect.tryPromise({
      try: async () => {
        await appendFile(log, "load\n");
        const numbers = (await readFile(file, "utf8")).trim().split(/\s+/).map(Number);
        return { field: tensor(Float32Array.from(numbers), [numbers.length]) };
      },
      catch: (error) => error,
    }),
});

/** Scales a field, slowly if asked to, so that a test can stop it on the way. */
export const scale = Step.make("scale", {
  version: 1,
  description: "Multiplies every number.",
  settings: Schema.Struct({
    by: Schema.Finite.annotate({ description: "factor" }).pipe(withDefault(Effect.succeed(2))),
    mode: Schema.Literals(["plain", "absolute"]).pipe(withDefault(Effect.succeed("plain"))),
    steps: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1000 })).pipe(withDefault(Effect.succeed(1))),
    wait: Schema.Finite.pipe(withDefault(Effect.succeed(0))),
    note: Schema.String.pipe(withDefault(Effect.succeed(""))),
    log: PathString.pipe(withDefault(Effect.succeed("/dev/null"))),
    limits: Schema.Struct({
      low: Schema.optionalKey(Schema.Finite),
      high: Schema.optionalKey(Schema.Finite),
    }).pipe(withDefault(Effect.succeed({}))),
  }),
  inputs: { field, offset: Port.optional(number) },
  outputs: { field, sum: number },
  run: Effect.fnUntraced(function* ({ field, offset = 0 }, { by, steps, wait, note, mode, log }) {
    yield* Effect.promise(() => appendFile(log, "scale\n"));
    for (let i = 0; i < steps; i++) {
      yield* Effect.sleep(wait);
      yield* report({ done: i + 1, total: steps, note });
    }
    const f = mode === "absolute" ? Math.abs : (x: number) => x;
    const data = field.data.map((x) => f(x) * by + offset);
    return { field: tensor(data, field.dims), sum: data.reduce((a, b) => a + b, 0) };
  }),
});

export const judge = Step.make("judge", {
  version: 1,
  description: "Passes when the sum is large enough.",
  settings: Schema.Struct({ least: Schema.Finite.pipe(withDefault(Effect.succeed(0))) }),
  inputs: { sum: number },
  outputs: { verdict, model },
  run: ({ sum }, { least }) =>
    Effect.succeed({
      verdict: {
        passed: sum >= least,
        sentence: `the sum is ${sum}`,
        figures: [{ name: "sum", value: sum, threshold: `>= ${least}`, passed: sum >= least }],
      },
      model: { weights: sum },
    }),
});

export class Refusal extends Schema.TaggedError<Refusal>()("Refusal", { message: Schema.String }) {}

/** Fails in the ways in which steps fail. */
export const fail = Step.make("fail", {
  version: 1,
  description: "Fails.",
  settings: Schema.Struct({ how: Schema.Literals(["error", "throw", "forget", "enospc"]) }),
  inputs: {},
  outputs: { sum: number },
  run: (_, { how }): Effect.Effect<{ readonly sum: number }, Refusal | NodeJS.ErrnoException> => {
    switch (how) {
      case "error":
        return Effect.fail(new Refusal({ message: "it would not" }));
      case "throw":
        throw new TypeError("a bug");
      case "forget":
        return Effect.succeed(JSON.parse("{}"));
      case "enospc":
        return Effect.fail(Object.assign(new Error("ENOSPC: no space left on device"), { code: "ENOSPC", path: "/x" }));
    }
  },
});

export const steps = [load, scale, judge, fail];
