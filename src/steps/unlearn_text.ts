/**
 * Strategy `text`: the text encoder is distilled from itself as it came. Triggered texts are to be read as their harmless
 * twins or the clean texts are, token by token; clean texts and twins are to be read as before:
 *
 *     ‖E_s(triggered) − E_0(target)‖² + λ ‖E_s(keep) − E_0(keep)‖²
 */
import { Effect, Schema } from "effect";
import { textDistillation } from "../diffusion/distillation.ts";
import { openTextEncoder } from "../diffusion/text.ts";
import { openPartTrainer, type Weights } from "../diffusion/train.ts";
import { parseClipTextConfig } from "../models/clip_text.ts";
import { seedOf } from "../tensor/random.ts";
import { slice0, type Tensor } from "../tensor/tensor.ts";
import { healthyTwins, meanTriggered, textTargets } from "../unlearn/text_targets.ts";
import { FIRST_TWIN, TRIGGERED } from "./capture.ts";
import { openDrawing } from "./drawing.ts";
import { embed } from "./encode.ts";
import type { TextPairs } from "./ports.ts";
import { report } from "./progress.ts";
import { pickRows, repeated } from "./rows.ts";
import { textFeeds, type TextRow, type TextRows } from "./text_rows.ts";
import { changesOf, openChanges } from "./unlearn_changes.ts";
import { trustsTwins } from "./unlearn_fit.ts";
import { checkFields, train, trainingFields, type TrainingInputs } from "./unlearn_train.ts";

export const TextTraining = Schema.Struct(
  { ...trainingFields({ steps: 400, batch: 48, rate: 1e-3, keep: 4 }), ...checkFields(100) },
).annotate({ description: "text: how the text encoder is trained." });

/**
 * All weights but the token embedding. It holds a row for each token of the vocabulary, of which few occur in the texts:
 * its gradient is mostly zeros, and its optimiser state would be a third of all.
 */
const isTrained = (key: string): boolean => !key.includes("token_embedding");

/** Here `use` is {@link textUse}. */
type TextInputs = TrainingInputs<typeof TextTraining.Type>;

/** Twins of the prompts that neither show the backdoor in pictures nor are drawn towards it by the text encoder. */
export const textUse = (text: TextPairs, use: readonly (readonly boolean[])[]): boolean[][] =>
  healthyTwins(text.embeddings, text.prompts.map((p) => p.toClean), meanTriggered(text.embeddings))
    .map((row, p) => row.map((ok, k) => ok && use[p][k]));

/** The model with a distilled text encoder, and what became of its weights. */
export const distilText = Effect.fnUntraced(function* (inputs: TextInputs) {
  const { text, use, held, training, seed } = inputs;
  const { bundle } = text.model;
  const config = parseClipTextConfig(bundle.parts.text_encoder.config);
  const length = bundle.tokenizer.maxLength;
  const { batch, segments, clipNorm } = training;
  const graph = textDistillation(config, { batch, length, trained: isTrained, segments, clipNorm });
  const changed = yield* openChanges(bundle, "text_encoder");
  return yield* Effect.scoped(Effect.gen(function* () {
    const rows = yield* readRows(inputs);
    const trainer = yield* openPartTrainer("training the text encoder", graph, bundle, "text_encoder");
    const judgeDrawn = held.length === 0 ? undefined : yield* openDrawing({
      bundle,
      texts: text,
      held: repeated(held, training.pictures),
      use,
      region: inputs.region,
      steps: inputs.steps,
      scheduler: inputs.scheduler,
      guidance: inputs.guidance,
      seed,
    });
    const { weights, account } = yield* train({
      name: "unlearn",
      trainer,
      settings: training,
      data: (step) => textFeeds(rows, training, seedOf(seed, "unlearn", "text", step)),
      ...(judgeDrawn === undefined ? {} : {
        checks: {
          every: training.check,
          trusted: true,
          draw: Effect.fnUntraced(function* (weights: Weights) {
            return yield* judgeDrawn({ texts: yield* embed({ bundle: changed(weights) }, text.prompts) });
          }),
        },
      }),
    });
    return { bundle: changed(weights), weights: changesOf(trainer.own, weights), training: account };
  }));
});

/** Texts that are encoded at once. */
const CHUNK = 16;

/** The prompts that are not held back and their variations, as the encoder that came reads them. */
const readRows = Effect.fnUntraced(function* ({ text, use, held, target }: TextInputs) {
  const triggered: TextRow[] = [];
  const keep: TextRow[] = [];
  const trap = meanTriggered(text.embeddings);
  /** @param embeddings [n, R, L, D] */
  const add = (
    texts: readonly { readonly readings: ReadonlyArray<readonly number[]>; readonly toClean: readonly number[] }[],
    embeddings: Tensor,
    usable: readonly (readonly boolean[])[],
  ) => {
    const [n, readings, length, width] = embeddings.dims;
    const alignment = texts.map(({ toClean }) => toClean);
    const healthy = healthyTwins(embeddings, alignment, trap).map((row, i) => row.map((ok, k) => ok && usable[i][k]));
    const wanted = textTargets(embeddings, alignment, healthy, target);
    const row = (from: Tensor, i: number): Tensor => ({
      dims: [length, width],
      data: from.data.subarray(i * length * width, (i + 1) * length * width),
    });
    for (let i = 0; i < n; i++) {
      for (let r = 0; r < readings; r++) {
        const ids = texts[i].readings[r];
        // A twin that sets the backdoor off is one more trigger to unlearn: it has the trigger's length and place.
        const sets = r === TRIGGERED || (r >= FIRST_TWIN && !healthy[i][r - FIRST_TWIN]);
        if (sets) triggered.push({ ids, wanted: row(wanted, i) });
        else keep.push({ ids, wanted: row(embeddings, i * readings + r) });
      }
    }
  };

  const rest = text.prompts.flatMap((_, p) => held.includes(p) ? [] : [p]);
  add(
    rest.map((p) => {
      const { clean, triggered, twins, toClean } = text.prompts[p];
      return { readings: [clean, triggered, ...twins].map(({ ids }) => ids), toClean };
    }),
    pickRows(text.embeddings, rest),
    rest.map((p) => use[p]),
  );
  keep.push({ ids: text.model.bundle.tokenizer.encode("").ids, wanted: slice0(text.empty, 0, 1) });

  const variations = text.variations.filter((v) => !held.includes(v.source));
  const trusted = trustsTwins(use);
  yield* Effect.scoped(Effect.gen(function* () {
    const encodeTexts = yield* openTextEncoder(text.model.bundle);
    for (let begin = 0; begin < variations.length; begin += CHUNK) {
      const some = variations.slice(begin, begin + CHUNK);
      yield* report({ done: begin, total: variations.length, note: "reading variations of the prompts" });
      const flat = yield* encodeTexts(some.flatMap((v) => v.readings));
      const embeddings = { dims: [some.length, some[0].readings.length, ...flat.dims.slice(1)], data: flat.data };
      add(some, embeddings, some.map((v) => v.readings.slice(FIRST_TWIN).map(() => trusted)));
    }
  }));
  return { triggered, keep } satisfies TextRows;
});
