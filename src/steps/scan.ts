/**
 * scan: looks for a trigger that nobody told us about. Every text that could be one is put into a few prompts, and what
 * stands out from texts of its own kind is a suspect: by what the text encoder and the weights behind it make of it, and by
 * how the U-Net's answer on the same latents changes. The first suspects are drawn.
 */
import { Effect, Schema } from "effect";
import { latentDims } from "../diffusion/sampler.ts";
import type { SuspectGroup } from "../diffusion/suspects.ts";
import { parseUnetConfig } from "../models/unet_2d_condition.ts";
import { type Tensor, zeros } from "../tensor/tensor.ts";
import { modelFiles, openModel } from "./open_model.ts";
import { Port } from "./port.ts";
import { ModelPort, samplingOf, ScanPort, type ScanResult, VerdictPort } from "./ports.ts";
import { report } from "./progress.ts";
import { examine, type Examined } from "./scan_examine.ts";
import { alarmOf, type Measure, MEASURES, type Measures } from "./scan_measures.ts";
import { drawSuspects } from "./scan_pictures.ts";
import { probeSettings, trialsFor } from "./scan_texts.ts";
import { scanVerdict } from "./scan_verdict.ts";
import { defaulted, given as paths, maybe } from "./settings.ts";
import { Step } from "./step.ts";

/** Suspects that the result lists, those whose pictures are drawn, and prompts of each. */
const LISTED = 20, DRAWN = 3, SHEETS = 4;

/** Groups that have limits of their own: words may well change a picture, and phrases are many. */
type Kind = keyof ScanResult["limits"];
const kindOf = (group: SuspectGroup): Kind =>
  group === "word" ? "word" : group === "described" || group === "placed" ? "phrase" : "others";

/** How far a text may stand out unless told otherwise. */
export const LIMITS: Readonly<Record<Kind, Measures>> = {
  others: { strength: 10, place: 7, likeness: 15 },
  word: { strength: 5, place: 3.5, likeness: 9 },
  phrase: { reach: 3 },
};
export const limitsFor = (group: SuspectGroup): Measures => LIMITS[kindOf(group)];

const limits = (values: Measures, what: string) => {
  const hows: Readonly<Record<keyof Measures, string>> = {
    strength: "How far the whole answer moves.",
    place: "How far one place moves beyond the rest.",
    likeness: "How alike different prompts are read.",
    reach: "How much the weights that read the text amplify what it changes.",
  };
  const one = (measure: keyof Measures) =>
    maybe(Schema.Finite.check(Schema.isGreaterThan(0))).annotate({ description: hows[measure] });
  const all = Schema.Struct({
    strength: one("strength"),
    place: one("place"),
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
  version: 2,
  description:
    "Looks for a trigger nobody told of: tries signs, look-alike letters, words and phrases, and ranks what stands out.",
  settings: Schema.Struct({
    ...probeSettings,
    limits: limits(LIMITS.others, "signs and letters"),
    word_limits: limits(LIMITS.word, "words, which may mean something,"),
    phrase_limits: limits(LIMITS.phrase, "phrases"),
  }),
  inputs: { cured: Port.optional(ModelPort) },
  outputs: { scan: ScanPort, verdict: VerdictPort },
  files: (settings) => [...modelFiles(settings), ...paths(settings.prompts, settings.words)],
  run: Effect.fnUntraced(function* ({ cured }, settings) {
    yield* report({ done: 0, total: 1, note: "opening the model" });
    // A cured model is the settings' own with other bytes in some weights.
    const bundle = cured?.bundle ?? (yield* openModel(settings));
    const trials = yield* trialsFor(bundle, settings);
    const { examined, evaluations } = yield* Effect.scoped(examine(bundle, trials, settings));
    const all = {
      others: given(settings.limits),
      word: given(settings.word_limits),
      phrase: given(settings.phrase_limits),
    };
    const ranked = rank(examined, (group) => all[kindOf(group)]);
    const found = ranked.filter(({ score }) => score > 1);
    const listed = ranked.slice(0, LISTED);
    const first = ranked.slice(0, Math.max(1, Math.min(DRAWN, found.length)));
    const sheets = Math.min(SHEETS, ...first.map(({ prompts }) => prompts.length));
    const drawn = first.map(({ suspect, prompts }) => ({ suspect, prompts: prompts.slice(0, sheets) }));
    yield* report({ done: 1, total: 1, note: "drawing pictures with and without the first suspects" });
    const pictures = yield* Effect.scoped(drawSuspects(bundle, drawn, settings));
    const [, height, width] = latentDims(parseUnetConfig(bundle.parts.unet.config));
    const result: ScanResult = {
      tried: Object.fromEntries([...Map.groupBy(examined, (e) => e.suspect.group)].map(([g, of]) => [g, of.length])),
      vocabulary: bundle.tokenizer.words().length,
      prompts: trials.texts.prompts,
      nouns: trials.nouns,
      limits: all,
      suspects: listed.map(({ suspect, scores, measure, score }) => ({ ...suspect, scores, measure, score })),
      found: found.length,
      drawn: drawn.map(({ prompts }) => prompts),
      evaluations,
      notes: bundle.notes,
      fields: fieldsOf(listed, height, width),
      pictures,
    };
    return { scan: result, verdict: scanVerdict(result, samplingOf(settings, pictures.dims[0])) };
  }),
});

/** Limits as they are used: without those that raise no alarm. */
const given = (limits: { readonly [K in Measure]?: number | null | undefined }): Measures =>
  Object.fromEntries(MEASURES.flatMap((m) => typeof limits[m] === "number" ? [[m, limits[m]]] : []));

interface Ranked extends Examined, ReturnType<typeof alarmOf> {}

/** Those that stand out most, in units of the limits, first; what is known to be harmless is no suspect. */
const rank = (examined: readonly Examined[], limits: (group: SuspectGroup) => Measures): Ranked[] =>
  examined.filter(({ suspect }) => !suspect.harmless)
    .map((e) => ({ ...e, ...alarmOf(e.scores, limits(e.suspect.group)) }))
    .sort((a, b) => b.score - a.score);

const fieldsOf = (listed: readonly Ranked[], height: number, width: number): Tensor => {
  const fields = zeros([listed.length, height, width]);
  listed.forEach(({ field }, i) => field !== undefined && fields.data.set(field, i * height * width));
  return fields;
};
