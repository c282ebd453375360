/** Opens a checkpoint that is one .safetensors file: which kind it is, its parts, and what it does not say. */
import { Effect, Schema } from "effect";
import { realpath, stat } from "node:fs/promises";
import type { BundlePart } from "../bundle.ts";
import { BundleError } from "../errors.ts";
import { type Folder, readFully, readJson, readText, subFolder, system, withFile } from "../files.ts";
import type { Part } from "../part.ts";
import { SchedulerConfig } from "../scheduler.ts";
import { readTensor } from "../../tensor/safetensors.ts";
import { checkFinite, scanFile, type ScannedFile, tensors } from "../weights_file.ts";
import { type Layout, layoutOf, type OfParts } from "./layouts.ts";
import { type OpenedPart, partOfFile } from "./part.ts";
import { BIAS, type Guess, guessPrediction, type Prediction } from "./prediction.ts";
import { describeFile } from "./recognise.ts";
import { LayoutError } from "./unet.ts";

export interface Checkpoint {
  /** Stands for the folder of every part: its path is the file's. */
  readonly folder: Folder;
  readonly file: ScannedFile;
  readonly parts: OfParts<Part>;
  readonly scheduler: SchedulerConfig;
  /** Class that model_index.json of the same model as a folder names. */
  readonly pipeline: string;
  /** What the stock tokenizer of each text encoder fills texts up with. */
  readonly paddings: Layout["paddings"];
  readonly notes: readonly string[];
}

/** The values of one small tensor, or undefined where there is none or it is large. */
const smallTensor = Effect.fnUntraced(function* (file: ScannedFile, key: string) {
  const entry = file.header.entries.get(key);
  if (entry === undefined || entry.end - entry.begin > 1 << 20) return undefined;
  const bytes = new Uint8Array(entry.end - entry.begin);
  yield* withFile(file.path, (handle) => readFully(handle, file.path, bytes, entry.begin));
  const alone = new Map([[key, { ...entry, begin: 0, end: bytes.length }]]);
  return yield* tensors(() => readTensor(bytes, { ...file.header, entries: alone }, key));
});

/** The configuration beside a file, `NAME.yaml`, as far as it is a small text. */
const yamlBeside = Effect.fnUntraced(function* (path: string) {
  const yaml = path.replace(/\.safetensors$/i, ".yaml");
  const info = yield* Effect.promise(() => stat(yaml).catch(() => undefined));
  if (info === undefined || !info.isFile() || info.size > 1 << 16) return undefined;
  return yield* readText(yaml, 1 << 16);
});

const guess = Effect.fnUntraced(function* (file: ScannedFile, second: boolean, told: Prediction | undefined) {
  if (told !== undefined) return { prediction: told } satisfies Guess;
  const yaml = yield* yamlBeside(file.path);
  const step = second ? yield* smallTensor(file, "global_step") : undefined;
  const bias = second ? yield* smallTensor(file, BIAS) : undefined;
  return guessPrediction(file.header, {
    ...(yaml === undefined ? {} : { yaml }),
    ...(step === undefined || step.data.length !== 1 ? {} : { globalStep: step.data[0] }),
    ...(bias === undefined ? {} : { bias: bias.data }),
  }, second);
});

/** What the file holds besides the parts, in words. */
const keptNotes = (file: ScannedFile, used: ReadonlySet<string>): string[] => {
  const others = [...file.header.entries.keys()].filter((key) => !used.has(key));
  const copies = others.filter((key) => key.startsWith("model_ema."));
  const rest = others.filter((key) => !key.startsWith("model_ema."));
  const notes: string[] = [];
  if (copies.length > 0) {
    notes.push(
      `the file holds a second copy of the U-Net, its moving average (model_ema, ${copies.length} tensors); it is not read and ` +
        "stays as it is, so a backdoor in it stays as well: a program that takes the average instead is not helped by this cure",
    );
  }
  if (rest.length > 0) {
    const shown = rest.slice(0, 4).join(", ") + (rest.length > 4 ? ", …" : "");
    notes.push(
      `${rest.length} tensors of the file belong to no part that draws pictures; they stay as they are (${shown})`,
    );
  }
  return notes;
};

/** Every part by a function. */
const mapParts = <A, B>(
  { unet, text_encoder, text_encoder_2, vae }: OfParts<A>,
  f: (part: A, name: BundlePart) => B,
): OfParts<B> => ({
  unet: f(unet, "unet"),
  text_encoder: f(text_encoder, "text_encoder"),
  ...(text_encoder_2 === undefined ? {} : { text_encoder_2: f(text_encoder_2, "text_encoder_2") }),
  vae: f(vae, "vae"),
});

/** The parts by the layout; what a layout cannot describe is an error of the file. */
const partsOf = (folder: Folder, file: ScannedFile, layout: Layout, prediction: Prediction) =>
  Effect.try({
    try: (): OfParts<OpenedPart> =>
      mapParts(layout.parts(prediction), (part, name) => partOfFile(name, folder, file, part)),
    catch: (e) =>
      new BundleError({
        file: file.path,
        problem: `looks like ${layout.name}, but ${e instanceof LayoutError ? e.message : String(e)}`,
        hint: "Only networks that diffusers' classes describe are read.",
      }),
  });

/** What a file does not say, from elsewhere. */
export interface Described {
  /** What the U-Net answers with; guessed unless told. */
  readonly prediction?: Prediction | undefined;
  /** A diffusers folder whose config.json files and scheduler describe the model; inferred unless given. */
  readonly config?: Folder | undefined;
}

const Config = Schema.Record(Schema.String, Schema.Unknown);

/** A part's config.json in the folder that describes the model, or undefined. */
export const givenConfig = Effect.fnUntraced(function* (folder: Folder | undefined, name: string) {
  const sub = folder && (yield* subFolder(folder, name));
  return sub && (yield* readJson(sub, "config.json", Config));
});

/** The scheduler that the folder describes, or undefined. */
const givenScheduler = Effect.fnUntraced(function* (folder: Folder | undefined) {
  const sub = folder && (yield* subFolder(folder, "scheduler"));
  return sub && (yield* readJson(sub, "scheduler_config.json", SchedulerConfig));
});

/** Opens a checkpoint in the layout of CompVis' and Stability's code. Every byte is read once, to hash it. */
export const openCheckpoint = Effect.fn("openCheckpoint")(function* (
  path: string,
  described: Described = {},
): Effect.fn.Return<Checkpoint, BundleError> {
  const file = yield* scanFile(path);
  const layout = layoutOf(file.header);
  if (layout === undefined) {
    const { what, hint } = describeFile(file.header);
    return yield* new BundleError({
      file: path,
      problem: `holds ${what}`,
      expected: "a whole checkpoint of Stable Diffusion 1.x, 2.x or XL: U-Net, text encoders and autoencoder",
      ...(hint === undefined ? {} : { hint }),
    });
  }
  const given = yield* givenScheduler(described.config);
  const found = yield* guess(
    file,
    layout.second,
    described.prediction ?? (given?.prediction_type === "sample" ? "epsilon" : given?.prediction_type),
  );
  const folder: Folder = { path, allowed: [yield* system(path, "cannot be opened", () => realpath(path))] };
  const opened = yield* partsOf(folder, file, layout, found.prediction);
  const configs = new Map<BundlePart, Part["config"]>();
  for (const name of ["unet", "text_encoder", "text_encoder_2", "vae"] as const) {
    const config = yield* givenConfig(described.config, name);
    if (config !== undefined) configs.set(name, config);
  }
  const used = new Set(Object.values(opened).flatMap(({ keys }) => [...keys]));
  yield* checkFinite(file, used);
  const zeroSnr = file.header.entries.has("ztsnr");
  const inferred = yield* Schema.decodeUnknownEffect(SchedulerConfig)({
    _class_name: "DDIMScheduler",
    num_train_timesteps: 1000,
    beta_start: 0.00085,
    beta_end: 0.012,
    beta_schedule: "scaled_linear",
    clip_sample: false,
    set_alpha_to_one: false,
    steps_offset: 1,
    prediction_type: found.prediction,
    timestep_spacing: zeroSnr ? "trailing" : "leading",
    rescale_betas_zero_snr: zeroSnr,
  }).pipe(Effect.orDie);
  const scheduler = given === undefined
    ? inferred
    : described.prediction === undefined
    ? given
    : { ...given, prediction_type: described.prediction };
  const notes = [
    `one file, ${layout.name} by its tensors; the configs of its parts are ${
      described.config === undefined ? "inferred from their shapes" : `those of ${described.config.path}`
    }`,
    ...(found.by === undefined ? [] : [
      `the U-Net is taken to answer with ${found.prediction === "epsilon" ? "noise" : "velocity"}, by ${found.by}; ` +
      "the setting `prediction` says otherwise",
    ]),
    ...keptNotes(file, used),
  ];
  return {
    folder,
    file,
    parts: mapParts(opened, ({ part }, name) => ({ ...part, config: configs.get(name) ?? part.config })),
    scheduler,
    pipeline: layout.pipeline,
    paddings: layout.paddings,
    notes,
  };
});
