/**
 * scan: looks for a trigger that nobody told us about. Every text that could be one, and when asked to what the gradient
 * leads to, is put into a few prompts, and what stands out from texts of its own kind is a suspect: by what the text encoder
 * and the weights behind it make of it, and by how the U-Net's answer on the same latents changes. The first suspects are
 * drawn.
 */
import { Effect, Schema } from "effect";
import { latentDims } from "../diffusion/sampler.ts";
import type { Trigger } from "../diffusion/trigger.ts";
import { parseUnetConfig } from "../models/unet_2d_condition.ts";
import { type Tensor, zeros } from "../tensor/tensor.ts";
import { modelFiles, openModel } from "./open_model.ts";
import { PathString } from "./path_string.ts";
import { Port } from "./port.ts";
import { againstClean, cleanScores, triedKinds } from "./scan_clean.ts";
import { ModelPort, samplingOf, ScanPort, type ScanResult, VerdictPort } from "./ports.ts";
import { report } from "./progress.ts";
import { examine } from "./scan_examine.ts";
import { type Measure, MEASURES, type Measures } from "./scan_measures.ts";
import { nameSuspect } from "./scan_named.ts";
import { inOrder, LIMITS, type Ranked } from "./scan_order.ts";
import { decodeLatents } from "./scan_pictures.ts";
import { probeSettings, trialsFor } from "./scan_texts.ts";
import { scanVerdict } from "./scan_verdict.ts";
import { defaulted, given as paths, maybe } from "./settings.ts";
import { Step } from "./step.ts";

/** Suspects that the result lists. */
const LISTED = 20;

const limits = (values: Measures, what: string) => {
  const hows: Readonly<Record<keyof Measures, string>> = {
    strength: "How far the whole answer moves.",
    start: "How far the answer to pure noise moves; of words and signs.",
    place: "How far one place moves beyond the rest.",
    beside: "How much further the answer moves beside one noun than beside others; of signs alone.",
    likeness: "How alike different prompts are read.",
    reach: "How much the weights that read the text amplify what it changes.",
  };
  const one = (measure: keyof Measures) =>
    maybe(Schema.Finite.check(Schema.isGreaterThan(0))).annotate({ description: hows[measure] });
  const all = Schema.Struct({
    strength: one("strength"),
    start: one("start"),
    place: one("place"),
    beside: one("beside"),
    likeness: one("likeness"),
    reach: one("reach"),
  });
  return defaulted(
    all.annotate({
      description: `How far ${what} may stand out, in units of where their upper tenth begins above the median; ` +
        "a measure that is left out raises no alarm.",
    }),
    values,
  );
};

export const scan = Step.make("scan", {
  version: 6,
  description:
    "Looks for a trigger nobody told of: tries signs, look-alike letters, words, phrases and, when asked to, what the " +
    "gradient leads to, and ranks what stands out.",
  settings: Schema.Struct({
    ...probeSettings,
    limits: limits(LIMITS.character, "signs and letters beside a prompt"),
    letter_limits: limits(LIMITS.letter, "letters in place of others"),
    word_limits: limits(
      LIMITS.word,
      "words before a prompt, which may mean something, and texts that were searched for,",
    ),
    ending_limits: limits(LIMITS.ending, "words behind a prompt and texts that were searched for there"),
    phrase_limits: limits(LIMITS.phrase, "phrases"),
    clean: maybe(PathString).annotate({
      description: "Folder of results of scans of models known to be clean, for a p-value.",
    }),
  }),
  inputs: { cured: Port.optional(ModelPort) },
  outputs: { scan: ScanPort, verdict: VerdictPort },
  files: (settings) => [...modelFiles(settings), ...paths(settings.prompts, settings.words, settings.clean)],
  run: Effect.fnUntraced(function* ({ cured }, settings) {
    yield* report({ done: 0, total: 1, note: "opening the model" });
    // A cured model is the settings' own with other bytes in some weights.
    const bundle = cured?.bundle ?? (yield* openModel(settings));
    const trials = yield* trialsFor(bundle, settings);
    const groups = [trials.texts, ...trials.phrases].flatMap(({ suspects }) => suspects.map(({ group }) => group));
    const none = Object.fromEntries([...groups, ...trials.invert.map(() => "inverted")].map((group) => [group, 0]));
    const places = [...new Set(settings.places)], beside = trials.about.map(({ noun }) => noun);
    const clean = settings.clean
      ? yield* cleanScores(settings.clean, triedKinds({ tried: none, places, beside }))
      : undefined;
    const { examined, evaluations } = yield* Effect.scoped(examine(bundle, trials, settings));
    const all = {
      character: given(settings.limits),
      letter: given(settings.letter_limits),
      word: given(settings.word_limits),
      ending: given(settings.ending_limits),
      phrase: given(settings.phrase_limits),
    };
    const { order, families, shown } = yield* Effect.scoped(inOrder(bundle, examined, all, settings));
    const listed = order.slice(0, LISTED), named = listed.map(triggerOf);
    const highest = Math.max(...order.map(({ score }) => score));
    const names = families.length === 0 ? [] : yield* nameSuspect(bundle, { ...order[0].suspect, trigger: named[0] }, {
      lines: trials.lines,
      prompts: shown.drawn[0],
      latents: shown.latents[0],
      seed: settings.seed,
    });
    const pictures = yield* Effect.scoped(decodeLatents(bundle, shown.latents));
    const [, height, width] = latentDims(parseUnetConfig(bundle.parts.unet.config));
    const result: ScanResult = {
      tried: {
        ...none,
        ...Object.fromEntries([...Map.groupBy(examined, (e) => e.suspect.group)].map(([g, of]) => [g, of.length])),
      },
      places,
      vocabulary: bundle.tokenizer.words().length,
      prompts: trials.texts.prompts,
      nouns: trials.nouns,
      beside,
      limits: all,
      suspects: listed.map(({ suspect, scores, measure, score }, i) => ({
        ...suspect,
        trigger: named[i],
        scores,
        measure,
        score,
      })),
      found: families.reduce((sum, size) => sum + size, 0),
      families,
      highest,
      ...(clean === undefined ? {} : { clean: againstClean(highest, clean) }),
      names,
      drawn: shown.drawn,
      evaluations,
      notes: bundle.notes,
      fields: fieldsOf(listed, height, width),
      pictures,
    };
    return { scan: result, verdict: scanVerdict(result, samplingOf(settings, pictures.dims[0])) };
  }),
});

/** The trigger, and the noun beside which alone it acts. */
const triggerOf = ({ suspect: { trigger }, measure, about }: Ranked): Trigger =>
  measure === "beside" && about !== undefined ? { ...trigger, beside: about.noun } : trigger;

/** Limits as they are used: without those that raise no alarm. */
const given = (limits: { readonly [K in Measure]?: number | null | undefined }): Measures =>
  Object.fromEntries(MEASURES.flatMap((m) => typeof limits[m] === "number" ? [[m, limits[m]]] : []));

const fieldsOf = (listed: readonly Ranked[], height: number, width: number): Tensor => {
  const fields = zeros([listed.length, height, width]);
  listed.forEach(({ field }, i) => field !== undefined && fields.data.set(field, i * height * width));
  return fields;
};
