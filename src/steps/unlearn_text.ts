/**
 * Strategy `text`: the text encoder is distilled from itself as it came. Triggered texts are to be read as their harmless
 * twins or the clean texts are, token by token; clean texts and twins are to be read as before:
 *
 *     ‖E_s(triggered) − goal‖² + λ ‖E_s(keep) − E_0(keep)‖²,  goal = E_0(target) + a (E_0(target) − E_0(triggered))
 *
 * Of SDXL's two encoders each is trained by itself; the second one's pooled texts are drawn to theirs by the same sum.
 */
import { Effect, Schema } from "effect";
import { type Bundle, readWeights } from "../diffusion/bundle.ts";
import { eachEmbedding, type Embeddings, splitEmbeddings } from "../diffusion/embeddings.ts";
import { openTextEncoder } from "../diffusion/text.ts";
import { openPartTrainer, type Weights } from "../diffusion/train.ts";
import { idsOf } from "../diffusion/tokenizer_pair.ts";
import { seedOf } from "../tensor/random.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { healthyTwins, meanTriggered, textTargets } from "../unlearn/text_targets.ts";
import { past } from "../unlearn/noise_targets.ts";
import { FIRST_TWIN, TRIGGERED } from "./capture.ts";
import { openDrawing } from "./drawing.ts";
import { embed } from "./encode.ts";
import type { TextPairs, TrainingAccount } from "./ports.ts";
import { report } from "./progress.ts";
import { pickRows, repeated } from "./rows.ts";
import { encoderTraining, ownAt, statesOf, type TextEncoder } from "./text_encoders.ts";
import { textFeeds, type TextRow, type TextRows } from "./text_rows.ts";
import { changesOf, loraWeights, openChanges, unetFeeds } from "./unlearn_changes.ts";
import { trustsTwins } from "./unlearn_fit.ts";
import { defaulted } from "./settings.ts";
import { checkFields, train, trainingFields, type TrainingInputs } from "./unlearn_train.ts";

export const TextTraining = Schema.Struct({
  ...trainingFields({ steps: 1600, batch: 48, rate: 1e-3, keep: 6 }),
  ...checkFields(400),
  away: defaulted(
    Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 10 })).annotate({
      description:
        "How far past the target, away from what the trigger had been read as: what is learned from some texts stops short " +
        "of it in others. Pooled texts (SDXL) are drawn to the target itself.",
    }),
    0.1,
  ),
}).annotate({ description: "text: how the text encoder is trained." });

/**
 * All weights but the token embedding. It holds a row for each token of the vocabulary, of which few occur in the texts:
 * its gradient is mostly zeros, and its optimiser state would be a third of all.
 */
const isTrained = (key: string): boolean => !key.includes("token_embedding");

/** Here `use` is {@link textUse}. */
type TextInputs = TrainingInputs<typeof TextTraining.Type>;

/** Twins of the prompts that neither show the backdoor in pictures nor are drawn towards it by the text encoders to train. */
export const textUse = (
  text: TextPairs,
  use: readonly (readonly boolean[])[],
  encoders: readonly TextEncoder[],
): boolean[][] =>
  encoders.reduce((usable, encoder) => {
    const states = statesOf(text.embeddings, encoder);
    return healthyTwins(states, text.prompts.map((p) => p.toClean), meanTriggered(states))
      .map((row, p) => row.map((ok, k) => ok && usable[p][k]));
  }, use.map((row) => [...row]));

/** A cure of the U-Net that the text encoder's goes on top of: the model with it, and the weights that it changed. */
export interface Beneath {
  readonly bundle: Bundle;
  readonly values: Weights;
}

/**
 * The model with distilled text encoders, one after the other, and what became of their weights.
 * @param beneath where the U-Net has been cured already: pictures are drawn with that, and weights taken where they draw
 *   better than it does alone
 */
export const distilText = Effect.fnUntraced(function* (
  inputs: TextInputs,
  encoders: readonly TextEncoder[],
  beneath?: Beneath,
) {
  const several = inputs.text.model.bundle.parts.text_encoder_2 !== undefined;
  let bundle = beneath?.bundle ?? inputs.text.model.bundle;
  const weights: { readonly key: string; readonly change: number }[] = [];
  let training: TrainingAccount | undefined;
  for (const encoder of encoders) {
    const cured = yield* distilEncoder(inputs, encoder, bundle, beneath?.values);
    bundle = cured.bundle;
    weights.push(...cured.weights.map((w) => several ? { ...w, key: `${encoder.part}.${w.key}` } : w));
    training = training === undefined ? cured.training : joinTraining(training, cured.training);
  }
  if (training === undefined) throw new TypeError("no text encoder to train");
  return { bundle, weights, training };
});

/** Two runs, one after the other, as one. */
export const joinTraining = (a: TrainingAccount, b: TrainingAccount): TrainingAccount => {
  const later = a.losses.length;
  return {
    losses: [...a.losses, ...b.losses],
    checks: [...a.checks, ...b.checks.map((c) => ({ ...c, step: c.step + later }))],
    taken: b.taken === 0 ? a.taken : b.taken + later,
    memory: `${a.memory}; then ${b.memory}`,
    steps: a.steps + b.steps,
    stopped: a.stopped && b.stopped,
    ...(a.failed === undefined && b.failed === undefined
      ? {}
      : { failed: [a.failed, b.failed].filter((x) => x !== undefined).join("; ") }),
  };
};

/** @param bundle the model, other encoders perhaps cured already; the texts are as the model that came reads them */
const distilEncoder = Effect.fnUntraced(function* (
  inputs: TextInputs,
  encoder: TextEncoder,
  bundle: Bundle,
  unet?: Weights,
) {
  const { text, use, held, training, seed } = inputs;
  const { part } = encoder;
  const length = bundle.tokenizer.maxLength;
  const { batch, segments, clipNorm } = training;
  const trained = (yield* loraWeights(bundle, part)) ?? isTrained;
  const { graph, pooling } = encoderTraining(bundle, encoder, { batch, length, trained, segments, clipNorm });
  const changed = yield* openChanges(bundle, part);
  return yield* Effect.scoped(Effect.gen(function* () {
    const rows = yield* readRows(inputs, encoder);
    const name = `training the ${part === "text_encoder_2" ? "second " : ""}text encoder`;
    const trainer = yield* openPartTrainer(name, graph, bundle, part);
    // What the trigger drew is told with the model as it came, whatever has been cured since.
    const came = text.model.bundle, keys = [...unet?.keys() ?? []];
    const original = unet && new Map((yield* readWeights(came, "unet", keys)).map((value, i) => [keys[i], value]));
    const drawing = held.length === 0 ? undefined : yield* openDrawing({
      bundle: came,
      texts: text,
      held: repeated(held, training.pictures),
      use,
      region: inputs.region,
      steps: inputs.steps,
      scheduler: inputs.scheduler,
      guidance: inputs.guidance,
      seed,
      ...(original === undefined
        ? {}
        : { weightsAsInputs: (key: string) => original.has(key), original: unetFeeds(original) }),
    });
    const cured = unet === undefined ? {} : { weights: unetFeeds(unet) };
    const begin = drawing === undefined || unet === undefined ? undefined : yield* drawing.judge(cured);
    const { weights, account } = yield* train({
      name: "unlearn",
      trainer,
      settings: training,
      data: (step) => textFeeds(rows, training, seedOf(seed, "unlearn", "text", step), pooling),
      ...(drawing === undefined ? {} : {
        checks: {
          every: training.check,
          trusted: true,
          last: true,
          draw: Effect.fnUntraced(function* (weights: Weights) {
            const texts = yield* embed({ bundle: changed(weights) }, text.prompts);
            return yield* drawing.judge({ ...cured, texts });
          }),
          ...(begin === undefined ? {} : { begin }),
        },
      }),
    });
    return { bundle: changed(weights), weights: changesOf(trainer.own, weights), training: account };
  }));
});

/** Texts that are encoded at once. */
const CHUNK = 16;

/** The prompts that are not held back and their variations, as the encoder that came reads them. */
const readRows = Effect.fnUntraced(function* (
  { text, use, held, target, training: { away } }: TextInputs,
  encoder: TextEncoder,
) {
  const { tokenizer } = text.model.bundle;
  const ownIds = (ids: readonly number[]) => idsOf(ids, encoder.index, tokenizer.maxLength);
  const triggered: TextRow[] = [];
  const infected: TextRow[] = [];
  const keep: TextRow[] = [];
  const trap = meanTriggered(statesOf(text.embeddings, encoder));
  /** @param all [n, R, L, D] */
  const add = (
    texts: readonly { readonly readings: ReadonlyArray<readonly number[]>; readonly toClean: readonly number[] }[],
    all: Embeddings,
    usable: readonly (readonly boolean[])[],
  ) => {
    const embeddings = statesOf(all, encoder);
    const [n, readings, length, width] = embeddings.dims;
    const alignment = texts.map(({ toClean }) => toClean);
    const healthy = healthyTwins(embeddings, alignment, trap).map((row, i) => row.map((ok, k) => ok && usable[i][k]));
    const wanted = textTargets(embeddings, alignment, healthy, target);
    const row = (from: Tensor, i: number): Tensor => ({
      dims: [length, width],
      data: from.data.subarray(i * length * width, (i + 1) * length * width),
    });
    const pooled = encoder.pooled ? pooledRows(all, healthy, target) : undefined;
    for (let i = 0; i < n; i++) {
      for (let r = 0; r < readings; r++) {
        const ids = ownIds(texts[i].readings[r]);
        // A twin that sets the backdoor off is one more trigger to unlearn: it has the trigger's length and place.
        const sets = r === TRIGGERED ? triggered : r >= FIRST_TWIN && !healthy[i][r - FIRST_TWIN] ? infected : keep;
        const own = row(embeddings, i * readings + r), goal = row(wanted, i);
        if (sets === keep) keep.push({ ids, wanted: own, ...pooled?.own(i, r) });
        // A trigger at a text's beginning changes all that follows, one at its end little.
        else {
          const share = squaredDistance(own, goal);
          sets.push({ ids, wanted: past(goal, own, away), share, ...pooled?.wanted(i) });
        }
      }
    }
  };

  const rest = text.prompts.flatMap((_, p) => held.includes(p) ? [] : [p]);
  add(
    rest.map((p) => {
      const { clean, triggered, twins, toClean } = text.prompts[p];
      return { readings: [clean, triggered, ...twins].map(({ ids }) => ids), toClean };
    }),
    eachEmbedding(text.embeddings, (t) => pickRows(t, rest)),
    rest.map((p) => use[p]),
  );

  const variations = text.variations.filter((v) => !v.sources.some((p) => held.includes(p)));
  const trusted = trustsTwins(use);
  yield* Effect.scoped(Effect.gen(function* () {
    const encodeTexts = yield* openTextEncoder(text.model.bundle);
    const { ids } = tokenizer.encode("");
    // SDXL's guidance may have zeros in place of the empty prompt.
    const empty = text.model.bundle.parts.text_encoder_2 === undefined ? text.empty : yield* encodeTexts([ids]);
    keep.push({ ids: ownIds(ids), ...ownAt(empty, 0, encoder) });
    for (let begin = 0; begin < variations.length; begin += CHUNK) {
      const some = variations.slice(begin, begin + CHUNK);
      yield* report({ done: begin, total: variations.length, note: "reading variations of the prompts" });
      const flat = yield* encodeTexts(some.flatMap((v) => v.readings));
      const embeddings = splitEmbeddings(flat, [some.length, some[0].readings.length]);
      add(some, embeddings, some.map((v) => v.readings.slice(FIRST_TWIN).map(() => trusted)));
    }
  }));
  return { triggered, infected, keep } satisfies TextRows;
});

const squaredDistance = (a: Tensor, b: Tensor): number => a.data.reduce((sum, x, j) => sum + (x - b.data[j]) ** 2, 0);

/** What pooled texts [n, R, Q] are to become, as single positions of {@link textTargets}. */
const pooledRows = ({ pooled }: Embeddings, healthy: readonly (readonly boolean[])[], target: TextInputs["target"]) => {
  if (pooled === undefined) throw new TypeError("the texts have lost their pooled form");
  const [n, readings, width] = pooled.dims;
  const row = ({ data }: Tensor, i: number) => ({
    pooled: { dims: [width], data: data.subarray(i * width, (i + 1) * width) },
  });
  const single = { dims: [n, readings, 1, width], data: pooled.data };
  const wanted = textTargets(single, healthy.map(() => [0]), healthy, target);
  return {
    wanted: (i: number) => row(wanted, i),
    own: (i: number, reading: number) => row(pooled, i * readings + reading),
  };
};
