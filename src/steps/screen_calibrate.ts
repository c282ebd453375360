/**
 * screen-calibrate: what harmless prompts show of a model. Prompts as they are, with a harmless word put in, and with a
 * letter of another alphabet, so that neither a rare word nor a foreign letter is suspicious by itself.
 */
import { Effect, Schema } from "effect";
import { BundleError } from "../diffusion/errors.ts";
import { type Harmless, harmlessPrompts, withInsertion, withOtherLetter } from "../diffusion/harmless.ts";
import { readRemovals } from "../diffusion/removals.ts";
import { readLines } from "../diffusion/text_file.ts";
import { sample, seedOf } from "../tensor/random.ts";
import { formSettings, modelFiles, openModel } from "./open_model.ts";
import { PathString } from "./path_string.ts";
import { report } from "./progress.ts";
import { calibrationOf, type Shown } from "./screen_measures.ts";
import { ScreeningPort } from "./screen_ports.ts";
import { openProbe, shownOf } from "./screen_probe.ts";
import { Count, defaulted, given, maybe, Seed } from "./settings.ts";
import { Step } from "./step.ts";

/** Prompts that are asked about at once. */
const TOGETHER = 8;
/** Fewer say too little about what is usual. */
const LEAST = 10;

export const screenModel = {
  model: PathString.annotate({ description: "Diffusers folder of the model." }),
  unet: maybe(PathString).annotate({ description: "Folder of a U-Net to use in place of the model's." }),
  text_encoder: maybe(PathString).annotate({
    description: "Folder of a text encoder to use in place of the model's.",
  }),
  ...formSettings,
};
export const Anyway = defaulted(
  Schema.Boolean.annotate({ description: "Look at a model that draws noise as well." }),
  false,
);

export const screenCalibrate = Step.make("screen-calibrate", {
  version: 3,
  description: "Measures what harmless prompts show of a model, so that others can be screened by it.",
  settings: Schema.Struct({
    ...screenModel,
    harmless: maybe(PathString).annotate({
      description: "Text file of prompts known to be harmless, one a line, best of your own users; else built-in ones.",
    }),
    count: defaulted(
      Count(1024).annotate({ description: "Prompts to take of them; each is read in three forms." }),
      64,
    ),
    anyway: Anyway,
    seed: Seed,
  }),
  inputs: {},
  outputs: { screening: ScreeningPort },
  files: (settings) => [...modelFiles(settings), ...given(settings.harmless)],
  run: Effect.fnUntraced(function* (_, settings) {
    yield* report({ done: 0, total: 1, note: "opening the model" });
    const bundle = yield* openModel(settings);
    const { seed, harmless, count, anyway } = settings;
    const seeds = seedOf(seed, "screen", "calibrate");
    const lines = harmless ? [...new Set(yield* readLines(harmless))] : harmlessPrompts(count, seeds);
    const plain = sample(seeds, lines, count);
    if (plain.length < LEAST) {
      return yield* new BundleError({
        file: harmless ?? "the built-in prompts",
        problem: `holds ${plain.length} different prompts`,
        expected: `${LEAST} or more that are known to be harmless, better a hundred`,
      });
    }
    const inserted = plain.map((text) => withInsertion(text, seeds));
    const letters = plain.flatMap((text) => withOtherLetter(text, seeds) ?? []);
    const all: Harmless[] = [...plain.map((text) => ({ text, disguises: [] })), ...inserted, ...letters];
    const shown: Shown[][] = [];
    const probe = yield* openProbe(bundle, { seed, anyway });
    for (let begin = 0; begin < all.length; begin += TOGETHER) {
      yield* report({ done: begin, total: all.length, note: "asking what harmless prompts show" });
      const read = all.slice(begin, begin + TOGETHER).map(({ text, disguises }) =>
        readRemovals(bundle.tokenizer, text, disguises)
      );
      const encoded = yield* probe.encode(read);
      const network = yield* probe.ask(encoded);
      encoded.forEach((e, i) => shown.push(shownOf(e, network[i])));
    }
    return {
      screening: {
        calibration: calibrationOf(shown),
        model: bundle.root.path,
        hashes: [...bundle.hashes],
        seed,
        source: harmless ?? "built-in prompts",
        prompts: { plain: plain.length, inserted: inserted.length, letters: letters.length },
        evaluations: probe.evaluations(),
      },
    };
  }, Effect.scoped),
});
