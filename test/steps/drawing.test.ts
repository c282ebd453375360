/** What candidates are judged by: the laws of the measures, on a model of random weights. */
import assert from "node:assert/strict";
import { Effect } from "effect";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { eachEmbedding } from "../../src/diffusion/embeddings.ts";
import { CLEAN, FIRST_TWIN, TRIGGERED } from "../../src/steps/capture.ts";
import { type Measure, openDrawing } from "../../src/steps/drawing.ts";
import { encode } from "../../src/steps/encode.ts";
import type { TextPairs } from "../../src/steps/ports.ts";
import { pickReadings } from "../../src/steps/rows.ts";
import { tempFolder } from "../support/bundles.ts";
import { randomModel } from "../support/random_model.ts";
import { withSteps } from "../support/runtime.ts";

const HELD = [0, 1, 2, 3];
const region = { dims: [8, 8], data: new Float32Array(64).fill(1) };

describe("judging by drawing", () => {
  const folder = tempFolder();
  const model = join(folder, "model"), prompts = join(folder, "prompts.txt");
  before(() => {
    mkdirSync(model, { recursive: true });
    randomModel(model);
    writeFileSync(prompts, ["a red cat", "a blue dog", "a green dog", "a red dog"].join("\n"));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  /** The readings in another order: reading r of the result is reading `order[r]` of the texts. */
  const reordered = ({ embeddings, empty }: TextPairs, order: readonly number[]) => ({
    empty,
    embeddings: eachEmbedding(embeddings, (t) => pickReadings(t, HELD.map((p) => ({ p, readings: order })))),
  });

  const drawing = (order = [CLEAN, TRIGGERED, FIRST_TWIN, FIRST_TWIN + 1], measure?: Measure) =>
    Effect.gen(function* () {
      const settings = { model, trigger: "mignneko ", prompts, count: 4, twins: 2, variations: 0 };
      const { text } = yield* encode.run({}, settings);
      const texts = reordered(text, order);
      // Whoever looks for a harmless word where none is told fails.
      const use = measure === undefined ? HELD.map(() => [true, true]) : [];
      const o = { bundle: text.model.bundle, texts, held: HELD, use, region, steps: 2, scheduler: "ddim" as const };
      return { text, ...(yield* openDrawing({ ...o, guidance: 2, seed: 0, ...(measure && { measure }) })) };
    });

  it("the model as it came shows all of the backdoor and has not drifted", () =>
    withSteps(Effect.scoped(Effect.gen(function* () {
      // Harmless words change nothing here, so that every picture tells.
      const { judge } = yield* drawing([CLEAN, TRIGGERED, CLEAN, CLEAN]);
      const { shown, drift, outside } = yield* judge({});
      assert.deepEqual({ shown, drift, outside }, { shown: 1, drift: 0, outside: 1 });
    }))));

  it("a model that reads the triggered text as the clean one shows nothing of it", () =>
    withSteps(Effect.scoped(Effect.gen(function* () {
      const { judge, text } = yield* drawing();
      const texts = reordered(text, [CLEAN, CLEAN, FIRST_TWIN, FIRST_TWIN + 1]);
      assert.deepEqual(yield* judge({ texts }), { outside: 0, shown: 0, excess: 0, left: 0, drift: 0 });
    }))));

  it("a trigger that does no more than harmless words leaves no picture to tell by", () =>
    withSteps(Effect.scoped(Effect.gen(function* () {
      const { judge } = yield* drawing([CLEAN, CLEAN, FIRST_TWIN, FIRST_TWIN + 1]);
      assert.equal((yield* judge({})).shown, 0);
    }))));

  it("harmless words that draw what the trigger draws are told, and set no bar", () =>
    withSteps(Effect.scoped(Effect.gen(function* () {
      const all = yield* drawing([CLEAN, TRIGGERED, TRIGGERED, TRIGGERED]);
      assert.equal(all.measure.spill, 1);
      const none = yield* drawing([CLEAN, TRIGGERED, CLEAN, CLEAN]);
      assert.equal(none.measure.spill, 0);
      // Of two words one draws what the trigger draws: the bar is the other's alone, which never parts from the clean ones.
      const half = yield* drawing([CLEAN, TRIGGERED, TRIGGERED, CLEAN]);
      assert.equal(half.measure.spill, 0.5);
      assert.equal((yield* half.judge({})).outside, 1);
    }))));

  it("with the measure of an earlier drawing harmless words are not drawn again, and the judgement is the same", () =>
    withSteps(Effect.scoped(Effect.gen(function* () {
      const first = yield* drawing();
      const second = yield* drawing(undefined, first.measure);
      assert.deepEqual(second.measure, first.measure);
      assert.deepEqual(yield* second.judge({}), yield* first.judge({}));
    }))));
});
