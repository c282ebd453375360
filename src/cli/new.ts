/**
 * `sau new step NAME` and `sau new pipeline NAME`: a commented start that runs as it is, with its property test. Nothing
 * that is there is overwritten.
 */
import { Effect, Schema } from "effect";
import { mkdir, stat, writeFile } from "node:fs/promises";
import { dirname, join, relative, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";

/** `sau new` cannot write what it was asked for. */
export class NewError extends Schema.TaggedError<NewError>()("NewError", { message: Schema.String }) {}

const root = fileURLToPath(new URL("../../", import.meta.url));

/** What a module in `folder` imports sau and its testing tools as: by name inside the project, by path elsewhere. */
const specifiers = (folder: string): { readonly sau: string; readonly testing: string } => {
  if (`${folder}${sep}`.startsWith(root)) return { sau: "sau", testing: "sau/testing" };
  const from = (file: string) => {
    const path = relative(folder, join(root, file)).split(sep).join("/");
    return path.startsWith(".") ? path : `./${path}`;
  };
  return { sau: from("mod.ts"), testing: from("src/testing/mod.ts") };
};

/** Deno's option that lends a file outside the project the project's settings; nothing inside. */
export const testConfig = (file: string): string =>
  resolve(file).startsWith(root) ? "" : `--config ${join(root, "deno.json")} `;

const camel = (name: string): string => name.replace(/[-_]+([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());

const stepModule = (name: string, sau: string) =>
  `/** ${name}: what it does, in one line. This start takes a mask and makes it weaker. */
import { defaulted, Effect, type Mask, MaskPort, Schema, Step, type Tensor } from "${sau}";

/** The arithmetic stands apart from the step: a plain function is what a property test can check. */
export const weaken = ({ dims, data }: Tensor, by: number): Tensor => ({ dims, data: data.map((x) => x * by) });

export const ${camel(name)} = Step.make("${name}", {
  // Raise it when equal settings give another result: cached results of older versions are then left alone.
  version: 1,
  description: "A mask made weaker.",
  // Each setting has a description (\`sau steps\` and editors show it) and, unless it must be given, a default.
  settings: Schema.Struct({
    by: defaulted(
      Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1 })).annotate({ description: "Factor of every cell." }),
      0.5,
    ),
  }),
  // Ports say what fits together: FieldPort, MaskPort, CapturePort, TextPort, ModelPort, ScoresPort, VerdictPort, …
  inputs: { mask: MaskPort },
  outputs: { mask: MaskPort },
  run: ({ mask }, { by }) =>
    Effect.sync(() => {
      const weak: Mask = { pooled: weaken(mask.pooled, by), prompts: weaken(mask.prompts, by) };
      return { mask: weak };
    }),
});
`;

const stepTest = (name: string, sau: string, testing: string) =>
  `/** Run it with: deno test -A ${name}.test.ts, or: bun test ./${name}.test.ts */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Effect } from "${sau}";
import { checkStepLaws, fc, maskArbitrary } from "${testing}";
import { ${camel(name)}, weaken } from "./${name}.ts";

describe("${name}", () => {
  // A property holds of every mask; what breaks it is shrunk to few cells and round numbers.
  it("stays within [0, 1] and never rises", () =>
    fc.assert(fc.property(maskArbitrary(), fc.double({ min: 0, max: 1, noNaN: true }), (mask, by) => {
      weaken(mask, by).data.forEach((x, i) => assert.ok(x >= 0 && x <= mask.data[i]));
    })));

  it("leaves a mask alone at a factor of 1", () =>
    fc.assert(fc.property(maskArbitrary(), (mask) => assert.deepEqual(weaken(mask, 1), mask))));

  // Same bytes again, inputs left alone, a result that the cache can keep, no prompt mixed up with another, …
  it("keeps the laws of steps", () => checkStepLaws(${camel(name)}, { settings: { by: 0.25 } }));

  it("runs as a step", async () => {
    const mask = { dims: [1, 2], data: Float32Array.of(0, 1) };
    const out = await Effect.runPromise(${camel(name)}.run({ mask: { pooled: mask, prompts: mask } }, {}));
    assert.deepEqual([...out.mask.pooled.data], [0, 0.5]);
  });
});
`;

const pipelineFile = (name: string, schema: string) =>
  `# yaml-language-server: $schema=${schema}
#
# What sau run would do:  sau plan ${name}.yaml
# Run it:                 sau run ${name}.yaml --set model=path/to/model --out out/${name}
sau: 1
name: ${name}
# Values that \${{ params.NAME }} stands for; --set NAME=VALUE changes them. Paths start from this file's folder.
params:
  model: model
  trigger: "\\u200b "
  prompts: prompts.txt
  seed: 0
steps:
  # ID: { use: STEP, with: { settings and inputs } }; \`sau steps\` lists them all.
  text:
    use: encode
    with:
      model: \${{ params.model }}
      trigger: \${{ params.trigger }}
      prompts: \${{ params.prompts }}
      seed: \${{ params.seed }}
  pairs:
    use: denoise
    with: { text: "\${{ steps.text.text }}", seed: "\${{ params.seed }}" }
  where:
    use: locate
    with: { text: "\${{ steps.text.text }}", capture: "\${{ steps.pairs.capture }}" }
  mask:
    use: mask
    with: { field: "\${{ steps.where.field }}", threshold: otsu }
# What the pipeline hands back, as files in --out.
outputs:
  mask: \${{ steps.mask.mask }}
`;

const pipelineTest = (name: string, sau: string, testing: string) =>
  `/** Run it with: deno test -A ${name}.test.ts, or: bun test ./${name}.test.ts. It computes no picture. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { builtinSteps, Effect, loadFile } from "${sau}";
import { fc } from "${testing}";

const file = new URL("./${name}.yaml", import.meta.url).pathname;
const load = (...overrides: string[]) => Effect.runPromise(loadFile(file, { steps: builtinSteps, overrides }));

describe("${name}", () => {
  // Every mistake in the file is an error here, with its line: unknown names, wrong types, kinds that do not fit.
  it("is free of mistakes", async () => {
    assert.deepEqual((await load()).steps.map(({ id }) => id), ["text", "pairs", "where", "mask"]);
  });

  it("hands the seed to every step that draws random numbers, whatever it is", () =>
    fc.assert(
      fc.asyncProperty(fc.nat(), async (seed) => {
        for (const { id, encoded } of (await load(\`seed=\${seed}\`)).steps) {
          const settings = encoded as { seed?: number };
          if (settings.seed !== undefined) assert.equal(settings.seed, seed, id);
        }
      }),
      { numRuns: 20 },
    ));
});
`;

/** Files of a start, by path relative to the folder. */
export const startOf = (kind: "step" | "pipeline", name: string, folder: string): Readonly<Record<string, string>> => {
  const { sau, testing } = specifiers(folder);
  if (kind === "step") {
    return { [`${name}.ts`]: stepModule(name, sau), [`${name}.test.ts`]: stepTest(name, sau, testing) };
  }
  const schema = relative(folder, join(root, "sau.schema.json")).split(sep).join("/");
  return { [`${name}.yaml`]: pipelineFile(name, schema), [`${name}.test.ts`]: pipelineTest(name, sau, testing) };
};

/** Writes a start at `path` (a name, or a path whose last part is one) and gives the files, as the user named them. */
export const writeNew = (kind: "step" | "pipeline", path: string): Effect.Effect<ReadonlyArray<string>, NewError> =>
  Effect.gen(function* () {
    const name = path.split(/[\\/]/).at(-1) ?? "";
    if (!/^[a-z][a-z0-9]*([_-][a-z0-9]+)*$/.test(name)) {
      return yield* new NewError({
        message: `"${name}" cannot be the name of a ${kind}: use small letters and digits, joined by - (like my-mask)`,
      });
    }
    const folder = resolve(dirname(path));
    const files = startOf(kind, name, folder);
    const failed = (error: unknown) => new NewError({ message: `${folder}: ${String(error)}` });
    for (const file of Object.keys(files)) {
      const there = yield* Effect.promise(() => stat(join(folder, file)).then(() => true, () => false));
      if (there) {
        return yield* new NewError({ message: `${join(dirname(path), file)} is there already; it is left alone` });
      }
    }
    yield* Effect.tryPromise({ try: () => mkdir(folder, { recursive: true }), catch: failed });
    for (const [file, text] of Object.entries(files)) {
      // "wx": what appeared in the meantime is not overwritten either.
      yield* Effect.tryPromise({ try: () => writeFile(join(folder, file), text, { flag: "wx" }), catch: failed });
    }
    return Object.keys(files).map((file) => join(dirname(path), file));
  });
