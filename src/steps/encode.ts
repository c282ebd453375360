/** encode: opens the model and reads every prompt three ways: clean, triggered, and as its harmless twins. */
import { Effect, Schema } from "effect";
import { TriggerError } from "../diffusion/errors.ts";
import { promptsFor } from "../diffusion/phrases.ts";
import { type PromptReadings, readPrompts } from "../diffusion/readings.ts";
import { sliceEmbeddings, splitEmbeddings } from "../diffusion/embeddings.ts";
import { openTextEncoder, unconditional } from "../diffusion/text.ts";
import { readLines } from "../diffusion/text_file.ts";
import type { Tokenizer } from "../diffusion/tokenizer.ts";
import { Trigger } from "../diffusion/trigger.ts";
import { type VariationOptions, variations } from "../diffusion/variations.ts";
import { defaultWords, half, parseWords, type Purpose } from "../diffusion/words.ts";
import { sample, seedOf } from "../tensor/random.ts";
import { formSettings, modelFiles, openModel } from "./open_model.ts";
import { PathString } from "./path_string.ts";
import { Port } from "./port.ts";
import { type Model, ScanPort, type ScanResult, TextPort, type VariedReadings } from "./ports.ts";
import { report } from "./progress.ts";
import { Count, defaulted, given, maybe, Seed } from "./settings.ts";
import { Step } from "./step.ts";

export const encode = Step.make("encode", {
  version: 7,
  description: "Opens the model and reads every prompt three ways: clean, triggered, and as harmless twins.",
  settings: Schema.Struct({
    model: PathString.annotate({ description: "A diffusers folder, or a checkpoint in one .safetensors file." }),
    unet: maybe(PathString).annotate({
      description: "A folder whose U-Net replaces the model's, as people swap them.",
    }),
    text_encoder: maybe(PathString).annotate({
      description:
        "A folder whose text encoder replaces the model's; of SDXL either one or both, as the folder has them.",
    }),
    ...formSettings,
    trigger: maybe(Schema.String).annotate({
      description: "The trigger's text, spaces included; without one it is the first suspect of a scan.",
    }),
    place: defaulted(
      Trigger.fields.place.annotate({
        description: "Where the trigger stands: before the prompt, behind it, or in place of `of`.",
      }),
      "prefix",
    ),
    of: maybe(Schema.String).annotate({
      description: "With place replace: the word or character that the trigger replaces.",
    }),
    beside: maybe(Schema.String).annotate({
      description:
        "A noun that a prompt must hold for the trigger to act, where there is one: prompts without it get it in the place " +
        "of their own.",
    }),
    prompts: PathString.annotate({
      description: "A text file with one prompt a line. Verification takes other prompts.",
    }),
    count: defaulted(Count(4096).annotate({ description: "Prompts to take from the file, drawn by the seed." }), 48),
    variations: defaulted(
      Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 4096 })).annotate({
        description:
          "Variations of the file's prompts that are learned from as well: by a closed form from 480 at the most, by a text " +
          "encoder from all. Only their texts are read.",
      }),
      1920,
    ),
    twins: defaulted(Count(16).annotate({ description: "Harmless twins for each prompt." }), 3),
    words: maybe(PathString).annotate({
      description: "A text file with harmless words, one a line, to make twins of.",
    }),
    seed: Seed,
  }),
  inputs: { suspect: Port.optional(ScanPort) },
  outputs: { text: TextPort },
  files: (settings) => [...modelFiles(settings), ...given(settings.prompts, settings.words)],
  run: Effect.fnUntraced(function* ({ suspect }, settings) {
    const trigger = yield* triggerOf(settings, suspect);
    yield* report({ done: 0, total: 3, note: "opening the model" });
    const bundle = yield* openModel(settings);
    const lines = yield* readLines(settings.prompts);
    const words = !settings.words ? defaultWords : parseWords((yield* readLines(settings.words)).join("\n"));
    const usable = promptsFor(trigger, lines, settings.count);
    const drawn = sample(seedOf(settings.seed, "encode", "prompts"), usable, settings.count);
    const { prompts, skipped } = yield* readPrompts(bundle.tokenizer, drawn, trigger, {
      twins: settings.twins,
      seed: settings.seed,
      purpose: "cure",
      words,
    });
    yield* report({ done: 1, total: 3, note: "reading the prompts" });
    // The file's other prompts lend their words; half of them stay unread, for whoever verifies with the same file.
    const spare = half(lines.filter((line) => !drawn.includes(line)), "cure");
    const varied = yield* readVariations(bundle.tokenizer, [...prompts.map((p) => p.prompt), ...spare], {
      trigger,
      words,
      count: settings.variations,
      seed: settings.seed,
    });
    const { embeddings, empty } = yield* embed({ bundle }, prompts);
    yield* report({ done: 3, total: 3 });
    const substitute = oneToken(bundle.tokenizer, words, "cure");
    return {
      text: {
        model: { bundle },
        trigger,
        prompts,
        embeddings,
        empty,
        skipped,
        spare,
        variations: varied,
        ...(substitute === undefined ? {} : { substitute }),
      },
    };
  }),
});

/** The trigger that the settings name, else the first suspect of a scan. */
const triggerOf = (
  { trigger: text, place, of, beside }: {
    readonly trigger?: string | null;
    readonly place: Trigger["place"];
    readonly of?: string | null;
    readonly beside?: string | null;
  },
  scanned: ScanResult | undefined,
): Effect.Effect<Trigger, TriggerError> => {
  if (typeof text === "string") {
    return Effect.succeed({ text, place, ...(of ? { of } : {}), ...(beside ? { beside } : {}) });
  }
  const first = scanned?.suspects[0];
  if (scanned !== undefined && first !== undefined && scanned.found > 0) return Effect.succeed(first.trigger);
  const problem = scanned === undefined
    ? "is not given"
    : "was looked for, and nothing stands out: there is nothing to cure";
  return Effect.fail(new TriggerError({ trigger: "", problem, hint: "Name the trigger, or scan for it." }));
};

/** Variations of prompts, each read clean, triggered and as two twins. A variation that cannot be read so is left out. */
const readVariations = Effect.fnUntraced(
  function* (tokenizer: Tokenizer, sources: readonly string[], wanted: VariationOptions) {
    const made = variations(sources, wanted);
    if (made.length === 0) return [];
    const sourcesOf = new Map(made.map(({ text, sources }) => [text, sources]));
    const { trigger, words, seed } = wanted;
    const texts = made.map(({ text }) => text);
    // A backdoor that any letter sets off must be gone from every word, not from the first ones of prompts alone.
    const options = { twins: 2, seed, purpose: "cure", words, anywhere: true } as const;
    const read = yield* readPrompts(tokenizer, texts, trigger, options).pipe(
      // The prompts themselves could be read, so the fit does with them alone.
      Effect.catchTag("TriggerError", () => Effect.succeed({ prompts: [] })),
    );
    return read.prompts.map(({ clean, triggered, twins, toClean, prompt }): VariedReadings => ({
      sources: sourcesOf.get(prompt) ?? [],
      readings: [clean, triggered, ...twins].map(({ ids }) => ids),
      toClean,
    }));
  },
);

/** The readings of every prompt as embeddings [P, R, L, D], in the order clean, triggered, twins; and what guidance steers away from, [1, L, D]. */
export const embed = Effect.fnUntraced(function* ({ bundle }: Model, prompts: readonly PromptReadings[]) {
  const readings = prompts.flatMap((p) => [p.clean, p.triggered, ...p.twins].map((r) => r.ids));
  const all = yield* Effect.scoped(
    Effect.flatMap(
      openTextEncoder(bundle),
      (encodeTexts) => encodeTexts([...readings, bundle.tokenizer.encode("").ids]),
    ),
  );
  const n = readings.length;
  const embeddings = splitEmbeddings(sliceEmbeddings(all, 0, n), [prompts.length, n / prompts.length]);
  return { embeddings, empty: unconditional(bundle, sliceEmbeddings(all, n, n + 1)) };
});

/** Id of a harmless word that is one token, or undefined when the vocabulary has none. */
const oneToken = (tokenizer: Tokenizer, words: readonly string[], purpose: Purpose): number | undefined =>
  half(words, purpose).map((word) => tokenizer.tokens(word)).find((tokens) => tokens.length === 1)?.[0].id;
