/**
 * A model: a diffusers folder of Stable Diffusion or a checkpoint in one file, some of its parts perhaps taken from
 * elsewhere, some tensors perhaps changed. Weights stay on disk until they are asked for; nothing here writes (save.ts does, into a new folder).
 */
import { Effect } from "effect";
import type { Tensor } from "../tensor/tensor.ts";
import { BundleError } from "./errors.ts";
import type { Folder } from "./files.ts";
import type { MergedLoras } from "./lora_merge.ts";
import type { Part } from "./part.ts";
import type { SchedulerConfig } from "./scheduler.ts";
import type { Checkpoint } from "./single_file/open.ts";
import type { Prediction } from "./single_file/prediction.ts";
import type { Tokenizer } from "./tokenizer.ts";

export type { PartName } from "./part.ts";
export { type PartSource, partWeights, readWeights, weightsBytes } from "./weights.ts";

/** Parts of a Stable Diffusion folder; SDXL alone has a second text encoder. */
export type BundlePart = "unet" | "text_encoder" | "text_encoder_2" | "vae";
export type BundleParts = Readonly<
  Record<Exclude<BundlePart, "text_encoder_2">, Part> & { readonly text_encoder_2?: Part }
>;
/** New values (float32) by part and by the key in the part's file. */
export type Changes = ReadonlyMap<BundlePart, ReadonlyMap<string, Tensor>>;

export interface Bundle {
  /** The diffusers folder. Of a checkpoint in one file, its path is the file's. */
  readonly root: Folder;
  readonly parts: BundleParts;
  /** Of both tokenizers together where there are two: see pairTokenizers. */
  readonly tokenizer: Tokenizer;
  readonly scheduler: SchedulerConfig;
  /** model_index.json as it stands. */
  readonly index: Readonly<Record<string, unknown>>;
  readonly changed: Changes;
  /** LoRAs that it was opened with; their changes are in `changed`. */
  readonly loras?: MergedLoras;
  /** SHA-256 of every file that is read, by `part/file`. Changes are not in it. */
  readonly hashes: ReadonlyMap<string, string>;
  /** What the reader of a report should know about how this folder is understood. */
  readonly notes: readonly string[];
  /** How it was opened: the same again gives the same bundle, as long as no file changes. */
  readonly opened: OpenedWith;
  /** Where one file holds the model, that file: a cure is handed back as such a file. */
  readonly checkpoint?: Checkpoint;
}

/** What a model was opened with besides its own path. */
export interface OpenedWith {
  /** Folders of the parts that were taken from elsewhere. */
  readonly replace: Partial<Readonly<Record<BundlePart, string>>>;
  readonly tokenizer?: string;
  readonly prediction?: Prediction;
  readonly config?: string;
}

export const bundleParts: readonly BundlePart[] = ["unet", "text_encoder", "text_encoder_2", "vae"];

/** The parts that a model has. */
export const partsOf = ({ parts }: Pick<Bundle, "parts">): (readonly [BundlePart, Part])[] =>
  bundleParts.flatMap((name) => {
    const part = parts[name];
    return part === undefined ? [] : [[name, part] as const];
  });

/** One part of a model, or an error that says that it has none. */
export const partOf = (
  { parts, root }: Pick<Bundle, "parts" | "root">,
  name: BundlePart,
): Effect.Effect<Part, BundleError> => {
  const part = parts[name];
  return part === undefined
    ? Effect.fail(new BundleError({ file: root.path, problem: `has no ${name}` }))
    : Effect.succeed(part);
};

/** The same model with new values for some tensors; later changes of a tensor replace earlier ones. */
export const withChanges = (bundle: Bundle, part: BundlePart, values: ReadonlyMap<string, Tensor>): Bundle => ({
  ...bundle,
  changed: new Map([...bundle.changed, [part, new Map([...bundle.changed.get(part) ?? [], ...values])]]),
});
