/** The laws of steps hold of the built-in ones, and find bugs that are planted in others. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Effect, Schema } from "effect";
import { denoise } from "../../src/steps/denoise.ts";
import { locate } from "../../src/steps/locate.ts";
import { mask } from "../../src/steps/mask.ts";
import { CapturePort, FieldPort, MaskPort, ScoresPort } from "../../src/steps/ports.ts";
import { Port } from "../../src/steps/port.ts";
import { defaulted } from "../../src/steps/settings.ts";
import { Step } from "../../src/steps/step.ts";
import { checkMaskLaws, checkStepLaws, fc, LawBroken, STEP_LAWS } from "../../src/testing/mod.ts";
import { softMask } from "../../src/mask/soft_mask.ts";

const SLOW = { timeout: 120_000 };

const broken = async (run: () => void | Promise<void>): Promise<LawBroken> => {
  try {
    await run();
  } catch (error) {
    if (error instanceof LawBroken) return error;
    throw error;
  }
  throw new Error("no law was found broken");
};

/** A mask step whose arithmetic is given. */
const maskStep = (run: (prompts: Float32Array, cells: number) => Float32Array) =>
  Step.make("planted", {
    version: 1,
    description: "a mask with a bug",
    settings: Schema.Struct({}),
    inputs: { field: FieldPort },
    outputs: { mask: MaskPort },
    run: ({ field }) =>
      Effect.sync(() => {
        const cells = field.pooled.data.length;
        return {
          mask: {
            pooled: { dims: field.pooled.dims, data: run(field.pooled.data, cells) },
            prompts: { dims: field.prompts.dims, data: run(field.prompts.data, cells) },
          },
        };
      }),
  });

const hard = (x: number): number => x > 0 ? 1 : 0;

describe("laws of the built-in steps", () => {
  it("mask", SLOW, async () => {
    await checkStepLaws(mask, { settings: {} });
    await checkStepLaws(mask, { settings: { threshold: { quantile: 0.5 }, blur: 1, edge: 4, invert: true } });
    checkMaskLaws(mask);
    checkMaskLaws(mask, { settings: (value) => ({ threshold: { value }, blur: 1 }), reach: 3 });
  });

  it("locate: twins are judged against those of all prompts", SLOW, async () => {
    const settings = {};
    await checkStepLaws(locate, { settings, except: [STEP_LAWS.others] });
    // From this seed two prompts have an infected twin each, and the list of these follows the prompts.
    await checkStepLaws(locate, { settings, except: [STEP_LAWS.others], seed: 22 });
    const { law } = await broken(() => checkStepLaws(locate, { settings, seed: 1, runs: 200 }));
    assert.equal(law, STEP_LAWS.others);
  });

  it(
    "denoise: the noise of a prompt is drawn by its place, so that its order matters",
    SLOW,
    () =>
      checkStepLaws(denoise, {
        settings: { steps: 2, at: [0, 1], tokens: 1 },
        shape: { prompts: 2 },
        runs: 2,
        except: [STEP_LAWS.order],
      }),
  );
});

/** Always from one seed: by others a bug may be found by another law first, or end a step above the least counterexample. */
describe("planted bugs", () => {
  it("a mask beyond 1", SLOW, async () => {
    const step = maskStep((prompts) => prompts.map((x) => 1.5 * hard(x)));
    const found = await broken(() => checkStepLaws(step, { settings: {}, seed: 2 }));
    assert.equal(found.law, STEP_LAWS.valid);
    assert.match(found.message, /a cell of the mask is 1\.5, not from 0 to 1/);
    const { given } = found.counterexample as { given: { field: { prompts: { dims: number[]; data: Float32Array } } } };
    assert.deepEqual(given.field.prompts.dims, [1, 2, 2], "the smallest field");
    assert.equal(given.field.prompts.data.filter((x) => x > 0).length, 1, "one cell at fault");
    assert.match((await broken(() => checkMaskLaws(step, { settings: () => ({}) }))).law, /values from 0 to 1/);
  });

  it("an input that is written to", SLOW, async () => {
    const step = maskStep((prompts) => prompts.map((x, i) => prompts[i] = hard(x)));
    const { law } = await broken(() => checkStepLaws(step, { settings: {}, except: [STEP_LAWS.repeat] }));
    assert.equal(law, STEP_LAWS.intact);
  });

  it("a state that one run leaves to the next", SLOW, async () => {
    let runs = 0;
    const step = maskStep((prompts) => prompts.map((x) => hard(x) / (1 + runs++ % 7)));
    assert.equal((await broken(() => checkStepLaws(step, { settings: {}, seed: 2 }))).law, STEP_LAWS.repeat);
  });

  it("one prompt's threshold taken for all", SLOW, async () => {
    const step = maskStep((prompts, cells) => {
      const mean = prompts.subarray(0, cells).reduce((sum, x) => sum + x, 0) / cells;
      return prompts.map((x) => hard(x - mean));
    });
    const found = await broken(() => checkStepLaws(step, { settings: {}, seed: 2 }));
    assert.equal(found.law, STEP_LAWS.order);
    // Shrinking ends where no smaller neighbour fails, which may be one prompt above the least.
    assert.ok((found.counterexample as { shape: { prompts: number } }).shape.prompts <= 3);
  });

  it("the mean of all prompts taken for each one's", SLOW, async () => {
    const step = maskStep((prompts) => {
      // Summed in one order, as sums of floats differ by their last digit.
      const mean = prompts.toSorted((a, b) => a - b).reduce((sum, x) => sum + x, 0) / prompts.length;
      return prompts.map((x) => hard(x - mean));
    });
    const found = await broken(() => checkStepLaws(step, { settings: {}, seed: 2 }));
    assert.equal(found.law, STEP_LAWS.others, "whatever their order, the mean is the same");
  });

  it("rows and columns mixed up", SLOW, async () => {
    const step = maskStep((prompts, cells) =>
      prompts.map((_, i) => hard(prompts[i - i % cells + (i % cells) % Math.sqrt(cells)]))
    );
    assert.equal((await broken(() => checkStepLaws(step, { settings: {}, seed: 2 }))).law, STEP_LAWS.flip);
  });

  it("a port that loses what it holds", SLOW, async () => {
    const Lossy = Port.make<{ readonly at: Date }>({
      kind: "moment",
      description: "a moment",
      encode: ({ at }) => ({ json: at.getTime(), tensors: {} }),
      decode: ({ json }) => ({ at: new Date(Math.round(json as number / 1000) * 1000) }),
    });
    const step = Step.make("moment", {
      version: 1,
      description: "a moment",
      settings: Schema.Struct({ at: defaulted(Schema.Int.annotate({ description: "ms" }), 1234) }),
      inputs: {},
      outputs: { moment: Lossy },
      run: (_, { at }) => Effect.succeed({ moment: { at: new Date(at) } }),
    });
    assert.equal((await broken(() => checkStepLaws(step, { settings: {}, seed: 2 }))).law, STEP_LAWS.stored);
    await checkStepLaws(step, { settings: { at: 2000 } });
  });

  it("a difference that is there without a trigger", SLOW, async () => {
    const step = Step.make("planted-locate", {
      version: 1,
      description: "looks at how far the triggered reading lies from nothing at all",
      settings: Schema.Struct({}),
      inputs: { capture: CapturePort },
      outputs: { field: FieldPort },
      run: ({ capture: { noise } }) =>
        Effect.sync(() => {
          const [, prompts, , , h, w] = noise.dims;
          const pooled = { dims: [h, w], data: new Float32Array(h * w).fill(1) };
          const field = {
            pooled,
            prompts: { dims: [prompts, h, w], data: new Float32Array(prompts * h * w).fill(1) },
            texts: Array.from({ length: prompts }, () => ""),
            shape: { shape: "none" as const, strength: 1, coverage: 1 },
            use: Array.from({ length: prompts }, () => [true, true]),
            infected: [],
          };
          return { field };
        }),
    });
    assert.equal((await broken(() => checkStepLaws(step, { settings: {}, seed: 2 }))).law, STEP_LAWS.trigger);
  });
});

describe("what a test has to say", () => {
  it("how an input is made whose kind has no arbitrary", async () => {
    const Own = Port.json<number>("own", "a number", Number);
    const step = Step.make("own", {
      version: 1,
      description: "adds one",
      settings: Schema.Struct({}),
      inputs: { n: Own, scores: Port.optional(ScoresPort) },
      outputs: { n: Own },
      run: ({ n }) => Effect.succeed({ n: n + 1 }),
    });
    await assert.rejects(checkStepLaws(step, { settings: {}, seed: 2 }), /own: say by inputs\.n how a own is made/);
    await checkStepLaws(step, { settings: {}, inputs: { n: () => fc.integer() } });
    const kinds = { own: { arbitrary: () => fc.integer(), valid: (n: number) => assert.ok(n < 100) } };
    const found = await broken(() => checkStepLaws(step, { settings: {}, kinds }));
    assert.equal(found.law, STEP_LAWS.valid);
    assert.equal((found.counterexample as { given: { n: number } }).given.n, 99, "shrunk to the very edge");
  });

  it("laws that are excepted by their names", async () => {
    await assert.rejects(checkStepLaws(mask, { settings: {}, except: ["gravity"] }), /there is no law "gravity"/);
  });

  it("settings that the step does not take are an error of the step, not of a law", async () => {
    const settings = { threshold: "otzu" } as unknown as { threshold: "otsu" };
    await assert.rejects(checkStepLaws(mask, { settings }), { name: "StepError" });
  });

  it("the mask of a step as a plain function", () => {
    checkMaskLaws((field, value) => softMask(field, { threshold: { value } }));
  });
});
