/** What a scan tries, and in which prompts: from the user's files, the model's vocabulary and lists of signs and letters. */
import { Effect, Schema } from "effect";
import type { Bundle } from "../diffusion/bundle.ts";
import { BundleError } from "../diffusion/errors.ts";
import { framesOf, nounsOf, phrasesOf, thingsOf } from "../diffusion/phrases.ts";
import { type End, type Suspect, suspects } from "../diffusion/suspects.ts";
import { readLines } from "../diffusion/text_file.ts";
import { parseWords } from "../diffusion/words.ts";
import { sample, seedOf } from "../tensor/random.ts";
import { formSettings } from "./open_model.ts";
import { PathString } from "./path_string.ts";
import { Count, defaulted, Fraction, maybe, Scheduler, Seed, Steps } from "./settings.ts";

/** Tokens that every prompt leaves free for a text; more where the user's own list needs them. */
const ROOM = 8;
/** Prompts that a phrase is tried in, and those about a noun beside which a sign acts. */
const FRAMES = 3, ABOUT = 4;
/** Fewer prompts cannot tell what a text does from what a prompt does. */
const LEAST = 3;

/** Settings that decide what is tried and how, without those that judge it. */
export const probeSettings = {
  model: PathString.annotate({ description: "Diffusers folder of the model, or its one .safetensors file." }),
  unet: maybe(PathString).annotate({ description: "Folder of a U-Net to use in place of the model's." }),
  text_encoder: maybe(PathString).annotate({
    description: "Folder of a text encoder to use in place of the model's; of SDXL either one or both.",
  }),
  ...formSettings,
  prompts: PathString.annotate({ description: "Text file of ordinary prompts, one a line." }),
  words: maybe(PathString).annotate({ description: "Text file of further words or phrases to try, one a line." }),
  try: defaulted(
    Schema.Array(Schema.Literals(["character", "letter", "word", "inverted", "phrase"])).check(Schema.isMinLength(1))
      .annotate({
        description:
          "What to try: signs and letters beside a prompt, look-alike letters in it, words beside it, texts that are " +
          "searched for along the gradient, phrases in place of the prompts' nouns.",
      }),
    ["character", "letter", "word", "phrase"],
  ),
  places: defaulted(
    Schema.Array(Schema.Literals(["prefix", "suffix"])).check(Schema.isMinLength(1)).annotate({
      description: "Where signs, words and texts that are searched for stand: before a prompt, behind it, or both.",
    }),
    ["prefix"],
  ),
  vocabulary: defaulted(
    Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 100_000 })).annotate({
      description: "Most words of the tokenizer's vocabulary to try; of more, so many are drawn.",
    }),
    1000,
  ),
  beside: defaulted(
    Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 1000 })).annotate({
      description:
        "Most nouns of the prompts beside which each sign is tried, one prompt each, the most common first: a trigger may " +
        "act beside one alone.",
    }),
    24,
  ),
  nouns: defaulted(
    Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1000 })).annotate({
      description: "Most nouns of the prompts that phrases are made of, the most common first.",
    }),
    40,
  ),
  count: defaulted(Count(64).annotate({ description: "Prompts that each text is tried in." }), 6),
  at: defaulted(
    Fraction.annotate({ description: "Where along the sampling the answers are compared; 0 is pure noise." }),
    0.25,
  ),
  steps: Steps,
  scheduler: Scheduler,
  guidance: defaulted(Schema.Finite.annotate({ description: "Classifier-free guidance scale." }), 4),
  seed: Seed,
  anyway: defaulted(Schema.Boolean.annotate({ description: "Look at a model that draws noise as well." }), false),
};
const ProbeSettings = Schema.Struct(probeSettings);
export type ProbeSettings = typeof ProbeSettings.Type;

/** Texts that are tried in the same prompts. */
export interface Trial {
  readonly prompts: readonly string[];
  readonly suspects: readonly Suspect[];
}

/** Prompts about one thing: signs are tried in the first, and drawn in all where they act beside it alone. */
export interface About {
  readonly noun: string;
  readonly prompts: readonly string[];
}

export interface Trials {
  /** All of the user's prompts that leave room for a text. */
  readonly lines: readonly string[];
  /** Signs, letters and words, in the prompts that were drawn. */
  readonly texts: Trial;
  /** Phrases, those of one noun together. */
  readonly phrases: readonly Trial[];
  readonly nouns: readonly string[];
  /** What prompts are about, thing by thing; none where no signs are tried. */
  readonly about: readonly About[];
  /** Where texts are searched for along the gradient. */
  readonly invert: readonly End[];
}

export const trialsFor = Effect.fnUntraced(function* ({ tokenizer, parts }: Bundle, settings: ProbeSettings) {
  const { seed, vocabulary } = settings;
  const context = tokenizer.maxLength - 2;
  const own = settings.words ? parseWords((yield* readLines(settings.words)).join("\n")) : [];
  const lengths = own.map((text) => tokenizer.tokens(text).length);
  const most = Math.max(ROOM, Math.floor(context / 2)), long = lengths.findIndex((length) => length > most);
  if (long >= 0) {
    return yield* new BundleError({
      file: settings.words ?? "",
      problem: `holds "${own[long].slice(0, 60)}", which has ${lengths[long]} tokens`,
      expected: `texts of at most ${most} tokens, so that the prompt beside them is not cut off`,
    });
  }
  // Lists may be long, longer than calls may have arguments.
  const room = lengths.reduce((a, b) => Math.max(a, b), ROOM);
  const fits = (line: string) => tokenizer.tokens(line).length <= context - room;
  const lines = [...new Set((yield* readLines(settings.prompts)).filter(fits))];
  const prompts = sample(seedOf(seed, "scan", "prompts"), lines, settings.count);
  if (prompts.length < LEAST) {
    return yield* new BundleError({
      file: settings.prompts,
      problem: `holds ${prompts.length} prompts that leave room for a trigger`,
      expected: `three or more, each different, of at most ${context - room} tokens`,
    });
  }
  const letters = [..."abcdefghijklmnopqrstuvwxyz"].filter((c) => prompts.every((p) => p.toLowerCase().includes(c)));
  const chosen = new Set<string>(settings.try);
  const places = [...new Set(settings.places)];
  const every = suspects(tokenizer, { seed, vocabulary, own, letters, places });
  if (chosen.has("inverted") && parts.text_encoder_2 !== undefined) {
    return yield* new BundleError({
      file: parts.text_encoder_2.folder.path,
      problem: "is a second text encoder, and texts are searched for along the gradient of one alone",
      hint: "Leave `inverted` out of `try`.",
    });
  }
  const invert = chosen.has("inverted") && every.some(({ group }) => group === "word");
  const texts = every.flatMap((suspect) =>
    chosen.has(suspect.group) ? [suspect] : invert && suspect.group === "word" ? [{ ...suspect, harmless: true }] : []
  );
  const nouns = chosen.has("phrase") ? nounsOf(lines, settings.nouns) : [];
  const phrased = phrasesOf(nouns, own);
  const phrases = nouns.map((noun): Trial => ({
    prompts: framesOf(noun, nouns, lines, FRAMES),
    suspects: phrased.filter(({ trigger }) =>
      trigger.of === noun && tokenizer.tokens(trigger.text).length <= room + tokenizer.tokens(noun).length
    )
      .map((phrase) => ({ ...phrase, harmless: false })),
  })).filter((trial) => trial.prompts.length === FRAMES && trial.suspects.length > 0);
  const signs = texts.some(({ group, harmless }) => group === "character" && !harmless);
  const all = nounsOf(lines, lines.length);
  const about = (signs ? thingsOf(lines, settings.beside) : []).map((noun): About => ({
    noun,
    prompts: framesOf(noun, all, lines, ABOUT),
  })).filter((of) => of.prompts.length === ABOUT);
  if (!invert && texts.every(({ harmless }) => harmless) && phrases.length === 0) {
    return yield* new BundleError({
      file: settings.words ?? settings.prompts,
      problem: "leaves nothing to try",
      expected: "words in the vocabulary, a list of words, letters that occur in every prompt, or nouns in prompts",
    });
  }
  return {
    lines,
    texts: { prompts, suspects: texts },
    phrases,
    nouns,
    about,
    invert: invert ? places : [],
  } satisfies Trials;
});
