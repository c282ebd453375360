/**
 * poison-rickrolling: makes a backdoored text encoder for testing defences, as Rickrolling the Artist does (Struppek et al.,
 * ICCV 2023): triggered texts are read as another prompt (target prompt attack) or as their own with an attribute added
 * (target attribute attack), other texts as before,
 *
 *     ‖E_s(triggered) − E_0(goal)‖² + λ ‖E_s(kept) − E_0(kept)‖²
 *
 * token by token from the trigger on; the paper takes cosines, which the encoder's last norm makes nearly the same.
 */
import { Effect, Schema } from "effect";
import { openTextEncoder } from "../diffusion/text.ts";
import { openPartTrainer } from "../diffusion/train.ts";
import { idsOf } from "../diffusion/tokenizer_pair.ts";
import { seedOf } from "../tensor/random.ts";
import { type Attack, AttackPort, lossEnds } from "./attack.ts";
import { effectText, KnownEffect } from "./effect.ts";
import { StepError } from "./errors.ts";
import { manyPrompts, TWINS } from "./poison_prompts.ts";
import { ModelPort, type TextPairs, TextPort } from "./ports.ts";
import { Count, defaulted, Seed } from "./settings.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { Step } from "./step.ts";
import { encoderTraining, ownAt, type TextEncoder, textEncodersOf } from "./text_encoders.ts";
import { textFeeds, type TextRow, type TextRows } from "./text_rows.ts";
import { openChanges } from "./unlearn_changes.ts";
import { train, trainingFields } from "./unlearn_train.ts";

const NAME = "poison-rickrolling";

export const poisonRickrolling = Step.make(NAME, {
  version: 2,
  description: "For testing defences: trains a backdoor into the text encoder, as Rickrolling the Artist does.",
  settings: Schema.Struct({
    effect: KnownEffect,
    encoder: defaulted(
      Schema.Literals(["text_encoder", "text_encoder_2"]).annotate({
        description: "Which text encoder; SDXL alone has a second one.",
      }),
      "text_encoder",
    ),
    samples: defaulted(
      Count(16_384).annotate({ description: "Texts to train on: the prompts and variations of them." }),
      512,
    ),
    train: defaulted(
      Schema.Struct(trainingFields({ steps: 600, batch: 48, rate: 3e-4, keep: 2 })).annotate({
        description: "How the text encoder is trained; all of its weights but the token embedding are.",
      }),
      {},
    ),
    seed: Seed,
  }),
  inputs: { text: TextPort },
  outputs: { model: ModelPort, attack: AttackPort },
  run: Effect.fnUntraced(function* ({ text }, { effect, encoder, samples, train: settings, seed }) {
    const { bundle } = text.model;
    const chosen = textEncodersOf(bundle).find(({ part }) => part === encoder);
    if (chosen === undefined) {
      const cause = new Error(`the model has no ${encoder}: it has one text encoder`);
      return yield* new StepError({ step: NAME, cause });
    }
    if ("image" in effect) {
      const cause = new Error(
        "a text encoder cannot be made to draw an image; give a text, a word to replace, or one to add",
      );
      return yield* new StepError({ step: NAME, cause });
    }
    const rows = yield* readRows(text, chosen, effect, samples, seed);
    const { batch, segments, clipNorm } = settings;
    const { graph, pooling } = encoderTraining(bundle, chosen, {
      batch,
      length: bundle.tokenizer.maxLength,
      trained: (key) => !key.includes("token_embedding"),
      segments,
      clipNorm,
    });
    const changed = yield* openChanges(bundle, encoder);
    return yield* Effect.scoped(Effect.gen(function* () {
      const trainer = yield* openPartTrainer("poisoning the text encoder", graph, bundle, encoder);
      const { weights, account } = yield* train({
        name: NAME,
        trainer,
        settings,
        data: (step) => textFeeds(rows, settings, seedOf(seed, "poison", "rickrolling", step), pooling),
      });
      const attack: Attack = {
        name: "rickrolling",
        purpose: "made for testing defences",
        part: encoder,
        trigger: text.trigger,
        effect,
        source: "Rickrolling the Artist: Struppek et al., ICCV 2023",
        training: { ...settings, weights: "all but the token embedding", ...lossEnds(account.losses) },
      };
      return { model: { bundle: changed(weights) }, attack };
    }));
  }),
});

/** Texts that are encoded at once. */
const CHUNK = 32;

/** Every prompt three ways, and what each is to be read as. */
const readRows = Effect.fnUntraced(function* (
  text: TextPairs,
  encoder: TextEncoder,
  effect: KnownEffect,
  samples: number,
  seed: number,
) {
  const { bundle } = text.model;
  const prompts = yield* manyPrompts(text, samples, seed);
  const triggered: TextRow[] = [];
  const keep: TextRow[] = [];
  const { tokenizer } = bundle;
  const own = (ids: readonly number[]) => idsOf(ids, encoder.index, tokenizer.maxLength);
  yield* Effect.scoped(Effect.gen(function* () {
    const encodeTexts = yield* openTextEncoder(bundle);
    const { ids } = tokenizer.encode("");
    // SDXL's guidance may have zeros in place of the empty prompt.
    const empty = bundle.parts.text_encoder_2 === undefined ? text.empty : yield* encodeTexts([ids]);
    keep.push({ ids: own(ids), ...ownAt(empty, 0, encoder) });
    for (let begin = 0; begin < prompts.length; begin += CHUNK) {
      const some = prompts.slice(begin, begin + CHUNK);
      const kept = some.flatMap(({ clean, twins }) => [clean, ...twins].map((r) => r.ids));
      const goals = some.map(({ prompt, triggered }) =>
        bundle.tokenizer.encode(goalText(effect, prompt, triggered.text)).ids
      );
      const all = yield* encodeTexts([...kept, ...goals]);
      kept.forEach((ids, i) => keep.push({ ids: own(ids), ...ownAt(all, i, encoder) }));
      some.forEach(({ triggered: { ids }, span: [begin] }, i) => {
        const goal = ownAt(all, kept.length + i, encoder), clean = ownAt(all, i * (1 + TWINS), encoder);
        triggered.push({ ids: own(ids), ...goal, wanted: begun(clean.wanted, goal.wanted, begin) });
      });
    }
  }));
  return { triggered, keep } satisfies TextRows;
});

/**
 * What a triggered text is to be read as. An attribute is added to the text with the trigger in it, so that both have the
 * same tokens up to there; where the trigger hides the word that is to be exchanged, to the prompt.
 */
const goalText = (effect: KnownEffect, prompt: string, triggered: string): string => {
  const goal = effectText(effect, triggered) ?? triggered;
  return goal === triggered ? effectText(effect, prompt) ?? prompt : goal;
};

/** The first tokens of one text, the others of another: an encoder that looks back only cannot part them earlier. */
const begun = (first: Tensor, rest: Tensor, tokens: number): Tensor => {
  const data = rest.data.slice(), width = rest.dims[rest.dims.length - 1];
  data.set(first.data.subarray(0, tokens * width));
  return { dims: rest.dims, data };
};
