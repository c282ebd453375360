/** The kinds of values that the built-in steps hand to one another. */
import { Effect } from "effect";
import { type Bundle, bundleParts, type OpenedWith, withChanges } from "../diffusion/bundle.ts";
import { openBundle } from "../diffusion/bundle_open.ts";
import { saveCuredLora } from "../diffusion/lora_cure.ts";
import { type LoraUse, withLoras } from "../diffusion/lora_merge.ts";
import type { PromptReadings } from "../diffusion/readings.ts";
import { saveDelta } from "../diffusion/delta.ts";
import { type Embeddings, withPooled } from "../diffusion/embeddings.ts";
import { saveBundle } from "../diffusion/save.ts";
import type { Trigger } from "../diffusion/trigger.ts";
import type { ShapeReport } from "../mask/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Capture, LayerCapture, TokenAblation } from "./capture.ts";
import type { End, Suspect } from "../diffusion/suspects.ts";
import type { SchedulerName } from "../diffusion/schedules/choose.ts";
import type { Figure } from "./errors.ts";
import type { AgainstClean } from "./scan_clean.ts";
import type { Measure, Measures } from "./scan_measures.ts";
import { Port, type Stored } from "./port.ts";
import type { Named } from "../unlearn/named.ts";

/** A model with what a cure did to it: changed weights, or latents to be blended while it samples. */
export interface Model {
  readonly bundle: Bundle;
  /** [h, w] in [0,1]: where the latents of the clean reading flow in during sampling. No weight changes then. */
  readonly blend?: Tensor;
}

/** A variation of a prompt, as token ids alone: more texts for the closed form to fit. */
export interface VariedReadings {
  /** The prompts that it was made of, indices into `prompts`; beyond them it was one of `spare`. */
  readonly sources: readonly number[];
  /** Ids of the clean, the triggered and the twins' readings. */
  readonly readings: ReadonlyArray<readonly number[]>;
  /** As in {@link PromptReadings}. */
  readonly toClean: readonly number[];
}

/** Prompts in their three readings, with the embeddings of each. */
export interface TextPairs {
  readonly model: Model;
  readonly trigger: Trigger;
  readonly prompts: readonly PromptReadings[];
  /** [P, R, L, D]; readings stand in the order clean, triggered, twins. SDXL: of both encoders side by side, and pooled. */
  readonly embeddings: Embeddings;
  /** What guidance steers away from, [1, L, D]: the empty prompt, or zeros where SDXL has them in its place. */
  readonly empty: Embeddings;
  /** Id of a harmless one-token word, to stand in for a token; absent when the vocabulary has none. */
  readonly substitute?: number;
  /** Prompts that could not be used, and why. */
  readonly skipped: ReadonlyArray<{ readonly prompt: string; readonly reason: string }>;
  /** Prompts of the file that only lent their words. */
  readonly spare: readonly string[];
  /** Those that could be read; fewer than asked for where prompts are few or the trigger's place is rare. */
  readonly variations: readonly VariedReadings[];
}

/** Where the trigger acts in the latents. */
export interface Field {
  /** ln of how much further the triggered reading parts from the clean one than harmless words do, [h, w]. */
  readonly pooled: Tensor;
  /** The same for each prompt, [P, h, w]. */
  readonly prompts: Tensor;
  readonly texts: readonly string[];
  readonly shape: ShapeReport;
  /** use[p][k] is false for a twin that shows the backdoor itself and is left out of every comparison. */
  readonly use: readonly (readonly boolean[])[];
  /** Twins that were left out, as text. */
  readonly infected: readonly string[];
}

/** Which tokens set the trigger off, and which layers carry it. Scores are logarithms; about 0 is ordinary. */
export interface Scores {
  readonly tokens: ReadonlyArray<TokenAblation & { readonly score: number }>;
  readonly layers: ReadonlyArray<{ readonly layer: string; readonly score: number }>;
}

export interface Mask {
  /** [h, w] in [0,1]; 1 where the trigger acts. */
  readonly pooled: Tensor;
  /** [P, h, w], each prompt's own. */
  readonly prompts: Tensor;
}

/** What a cure draws for prompts it was not fitted to, in latents; triggered and clean, against harmless words. */
export interface Drawn {
  /** Share of triggered pictures that part from the clean ones, drawn with the same weights, further than harmless words do (95th percentile), in the region. */
  readonly outside: number;
  /**
   * Share of triggered pictures that are nearer to what the trigger drew in the model as it came than to the clean ones, of
   * those that the trigger changed further than harmless words do; 0 where it changed none so far.
   */
  readonly shown: number;
  /** Mean over triggered pictures of ln of how far beyond that they are, 0 for those within. */
  readonly excess: number;
  /** How far triggered pictures part from the clean ones in the region, over how far harmless words do; means of each. */
  readonly left: number;
  /** How far clean pictures moved, over how far a harmless word moves them. */
  readonly drift: number;
}

/** One candidate of a search for a cure. */
export interface Candidate {
  readonly name: string;
  /** Of the closed form: what is left of the trigger, and what the kept embeddings lose. */
  readonly residual: number;
  readonly keepResidual: number;
  /** Seen on validation prompts: trigger's effect over a harmless word's, and drift over the same. */
  readonly trigger?: number;
  readonly drift?: number;
  /** Seen in pictures, which the best ones alone draw. */
  readonly drawn?: Drawn;
}

/** How training went. */
export interface TrainingAccount {
  /** Loss of each step that was made. */
  readonly losses: readonly number[];
  /** What the held-back prompts drew at some of them. */
  readonly checks: ReadonlyArray<Drawn & { readonly step: number }>;
  /** The step whose weights were taken, counted from 1. */
  readonly taken: number;
  /** Memory that a step takes, as the graph says, in words. */
  readonly memory: string;
  /** Steps that were asked for. */
  readonly steps: number;
  /** Whether it ended before them because the checks held. */
  readonly stopped: boolean;
  /** Words that do what the trigger does, whose pictures were kept as well. */
  readonly named?: readonly Named[];
  /** What ended it, where a step's loss or gradient was no number. */
  readonly failed?: string;
}

/** What unlearn did, and why. */
export interface Account {
  readonly strategy: string;
  readonly why: string;
  readonly candidates: readonly Candidate[];
  readonly chosen?: Candidate;
  /** Of the model as it came, on the same validation prompts. */
  readonly before?: { readonly trigger: number };
  readonly text: { readonly shift: number; readonly spread: number };
  readonly training?: TrainingAccount;
  /** For each changed weight, ‖W' − W‖ / ‖W‖. */
  readonly weights: ReadonlyArray<{ readonly key: string; readonly change: number }>;
}

/** Pictures of one prompt, side by side: each [3, H, W] in 0…1. */
export interface Sheet {
  readonly prompt: string;
  readonly triggered: string;
  readonly twin: string;
  /** One of those that still show the backdoor after the cure, of as many as are shown. */
  readonly left?: true;
  readonly pictures: Readonly<
    Record<"cleanBefore" | "triggeredBefore" | "twinBefore" | "triggeredAfter" | "cleanAfter", Tensor>
  >;
}

export interface Verdict {
  readonly passed: boolean;
  /** The verdict in plain words. */
  readonly sentence: string;
  readonly figures: readonly Figure[];
  /** Figures that could not be measured, and why. */
  readonly missing: ReadonlyArray<{ readonly name: string; readonly why: string }>;
  readonly sheets: readonly Sheet[];
  /** How the pictures were drawn; absent where none was. */
  readonly sampling?: Sampling;
}

export interface Sampling {
  readonly steps: number;
  /** DDIM where absent. */
  readonly scheduler?: SchedulerName;
  readonly guidance: number;
  readonly seed: number;
  readonly pictures: number;
}

/** What a verdict says of how its pictures were drawn. */
export const samplingOf = (
  { steps, scheduler, guidance, seed }: Required<Omit<Sampling, "pictures">>,
  pictures: number,
): Sampling => ({ steps, ...(scheduler === "ddim" ? {} : { scheduler }), guidance, seed, pictures });

/** One text that scan tried, and how far it stands out from others of its kind. */
export interface ScannedText extends Suspect {
  readonly scores: Measures;
  /** The measure that stands out most, and how far in units of its limit. */
  readonly measure: Measure;
  readonly score: number;
}

/** What scan found in a model. */
export interface ScanResult {
  /** Texts tried, by group. */
  readonly tried: Readonly<Record<string, number>>;
  /** Where texts beside a prompt stood. */
  readonly places: readonly End[];
  /** Words that the vocabulary has. */
  readonly vocabulary: number;
  readonly prompts: readonly string[];
  /** Nouns of the prompts that phrases were made of. */
  readonly nouns: readonly string[];
  /** Nouns of the prompts beside which signs were tried. */
  readonly beside: readonly string[];
  /** How far texts of each kind may stand out. */
  readonly limits: Readonly<Record<"character" | "letter" | "word" | "ending" | "phrase", Measures>>;
  /** The texts that stand out most, the first most of all. */
  readonly suspects: readonly ScannedText[];
  /** How many of all stand out further than the limits allow. */
  readonly found: number;
  /** How many different things they do, and how many of them do each, in the order of `suspects`. */
  readonly families: readonly number[];
  /** How far any text stands out, in units of its limit. */
  readonly highest: number;
  /** Against scans of clean models, where there are some. */
  readonly clean?: AgainstClean;
  /** ln of how much further each of `suspects` moves each cell than is usual, [n, h, w]. */
  readonly fields: Tensor;
  /** Words that do what the first suspect does, the nearest first. */
  readonly names: readonly Named[];
  /** The prompts that each of the first suspects was drawn with. */
  readonly drawn: readonly (readonly string[])[];
  /** Answers of the U-Net that were compared, but for those that tell what the first suspect draws. */
  readonly evaluations: number;
  /** How the model was understood. */
  readonly notes?: readonly string[];
  /** For each suspect that was drawn its prompts clean, then the same with it: [s · 2 · p, 3, H, W] in 0…1. */
  readonly pictures: Tensor;
}

/** A model as the cache keeps it: where it came from, and the tensors that were changed. */
const modelStored = ({ bundle, blend }: Model): Stored => ({
  json: {
    root: bundle.root.path,
    opened: bundle.opened,
    hashes: [...bundle.hashes],
    ...(bundle.loras === undefined ? {} : { loras: bundle.loras.uses.map(({ file, weight }) => ({ file, weight })) }),
  },
  tensors: {
    ...Object.fromEntries(
      [...bundle.changed].flatMap(([part, values]) => {
        // What a LoRA made of a weight is merged again from its file.
        const merged = bundle.loras?.values.get(part);
        return [...values].filter(([key, value]) => merged?.get(key) !== value)
          .map(([key, value]) => [`${part}/${key}`, value]);
      }),
    ),
    ...(blend === undefined ? {} : { blend }),
  },
});

const PARTS = bundleParts;

const modelFrom = Effect.fnUntraced(function* ({ json, tensors }: Stored) {
  const { root, opened, hashes, loras = [] } = json as {
    root: string;
    opened: OpenedWith;
    hashes: [string, string][];
    loras?: LoraUse[];
  };
  let bundle = yield* withLoras(yield* openBundle(root, opened), loras);
  // The folders may have changed since: a cached cure belongs to the very weights it was made for.
  const same = hashes.every(([file, hash]) => bundle.hashes.get(file) === hash);
  if (!same) return yield* Effect.fail(new Error(`${root} has changed since this result was made`));
  for (const part of PARTS) {
    const own = Object.entries(tensors).filter(([name]) => name.startsWith(`${part}/`));
    if (own.length > 0) {
      bundle = withChanges(bundle, part, new Map(own.map(([name, t]) => [name.slice(part.length + 1), t])));
    }
  }
  return { bundle, ...(tensors.blend === undefined ? {} : { blend: tensors.blend }) } satisfies Model;
});

export const ModelPort = Port.make<Model>({
  kind: "model",
  description: "A Stable Diffusion model in whichever form it came, with the changes that a cure made.",
  encode: modelStored,
  decode: modelFrom,
  save: ({ bundle }, dir, { loraOnly = false, loraError } = {}) =>
    loraOnly ? saveCuredLora(bundle, dir, loraError) : Effect.gen(function* () {
      const { exported } = yield* saveBundle(bundle, dir);
      return [...exported, ...yield* saveDelta(bundle, dir, loraError)];
    }),
});

export const TextPort = Port.make<TextPairs>({
  kind: "text",
  description: "Prompts in three readings (clean, triggered, twins) as token ids and embeddings.",
  encode: ({ model, embeddings, empty, ...json }) => {
    const inner = modelStored(model);
    return {
      json: { ...json, model: inner.json },
      tensors: {
        ...inner.tensors,
        embeddings,
        empty,
        ...(embeddings.pooled === undefined ? {} : { "embeddings.pooled": embeddings.pooled }),
        ...(empty.pooled === undefined ? {} : { "empty.pooled": empty.pooled }),
      },
    };
  },
  decode: ({ json, tensors: { embeddings, empty, ...rest } }) => {
    const pooled = { embeddings: rest["embeddings.pooled"], empty: rest["empty.pooled"] };
    const { model, ...own } = json as Omit<TextPairs, "model" | "embeddings" | "empty"> & { model: unknown };
    return Effect.map(
      modelFrom({ json: model, tensors: rest }),
      (opened) => ({
        ...own,
        model: opened,
        embeddings: withPooled(embeddings, pooled.embeddings),
        empty: withPooled(empty, pooled.empty),
      }),
    );
  },
});

export const CapturePort = Port.make<Capture>({
  kind: "capture",
  description: "How the U-Net answers each reading on the same latents: noise, latents, cross-attention.",
  encode: ({ latents, noise, layers, tokenChange, ...json }) => ({
    json: { ...json, layers: layers.map(({ layer }) => layer) },
    tensors: {
      latents,
      noise,
      "tokens.triggered": tokenChange.triggered,
      "tokens.twin": tokenChange.twin,
      ...Object.fromEntries(layers.flatMap((l, i) => [[`maps.${i}`, l.maps], [`response.${i}`, l.response]])),
    },
  }),
  decode: ({ json, tensors }) => {
    const { layers, ...own } = json as Pick<Capture, "timesteps" | "tokens"> & { layers: readonly string[] };
    return {
      ...own,
      latents: tensors.latents,
      noise: tensors.noise,
      tokenChange: { triggered: tensors["tokens.triggered"], twin: tensors["tokens.twin"] },
      layers: layers.map((layer, i): LayerCapture => ({
        layer,
        maps: tensors[`maps.${i}`],
        response: tensors[`response.${i}`],
      })),
    };
  },
});

export const FieldPort = Port.make<Field>({
  kind: "field",
  description: "Where the trigger acts: how much further it moves each latent cell than harmless words do.",
  encode: ({ pooled, prompts, ...json }) => ({ json, tensors: { pooled, prompts } }),
  decode: ({ json, tensors }) => ({
    ...json as Omit<Field, "pooled" | "prompts">,
    pooled: tensors.pooled,
    prompts: tensors.prompts,
  }),
});

export const ScoresPort: Port<Scores> = Port.json(
  "scores",
  "Scores per token and per layer.",
  (json) => json as Scores,
);

export const MaskPort = Port.make<Mask>({
  kind: "mask",
  description: "A soft mask in [0,1] on the latent cells.",
  encode: ({ pooled, prompts }) => ({ json: null, tensors: { pooled, prompts } }),
  decode: ({ tensors }) => ({ pooled: tensors.pooled, prompts: tensors.prompts }),
});

export const AccountPort: Port<Account> = Port.json(
  "account",
  "What unlearn did to the weights, and why.",
  (json) => json as Account,
);

const VIEWS = ["cleanBefore", "triggeredBefore", "twinBefore", "triggeredAfter", "cleanAfter"] as const;

export const VerdictPort = Port.make<Verdict>({
  kind: "verdict",
  description: "Whether the trigger is gone and nothing else changed: figures, intervals, thresholds, pictures.",
  encode: ({ sheets, ...json }) => ({
    json: { ...json, sheets: sheets.map(({ pictures: _, ...texts }) => texts) },
    tensors: Object.fromEntries(sheets.flatMap((s, i) => VIEWS.map((view) => [`${i}.${view}`, s.pictures[view]]))),
  }),
  decode: ({ json, tensors }) => {
    const { sheets, ...own } = json as Omit<Verdict, "sheets"> & { sheets: readonly Omit<Sheet, "pictures">[] };
    const picturesOf = (i: number) => {
      const at = (view: typeof VIEWS[number]) => tensors[`${i}.${view}`];
      return {
        cleanBefore: at("cleanBefore"),
        triggeredBefore: at("triggeredBefore"),
        twinBefore: at("twinBefore"),
        triggeredAfter: at("triggeredAfter"),
        cleanAfter: at("cleanAfter"),
      };
    };
    return { ...own, sheets: sheets.map((texts, i) => ({ ...texts, pictures: picturesOf(i) })) };
  },
});

export const ScanPort = Port.make<ScanResult>({
  kind: "scan",
  description: "Texts that could be a trigger, ranked by how far they stand out, with fields and pictures.",
  encode: ({ fields, pictures, ...json }) => ({ json, tensors: { fields, pictures } }),
  decode: ({ json, tensors: { fields, pictures } }) => ({
    ...json as Omit<ScanResult, "fields" | "pictures">,
    fields,
    pictures,
  }),
});
