/** One network of a model: its config.json and its weights, checked but left on disk. */
import { Effect, Schema } from "effect";
import { createHash } from "node:crypto";
import { basename, join } from "node:path";
import type { Header } from "../tensor/safetensors.ts";
import { BundleError } from "./errors.ts";
import { fileIn, type Folder, readJson } from "./files.ts";
import { bytesOf, checkFinite, joinHeaders, scanFile, type WeightsFile, wholeFile } from "./weights_file.ts";
import { networkWeights } from "./whole_network.ts";
import { GRAPH, openExport } from "./onnx/open.ts";
import { findWeights, type FoundWeights } from "./weights_names.ts";

export { fromSafetensors, tensors } from "./weights_file.ts";
export { isWeights } from "./weights_names.ts";

/** The networks that are read: those of a Stable Diffusion folder, and the CLIP that scores pictures. */
export type PartName = "unet" | "text_encoder" | "text_encoder_2" | "vae" | "clip";

export interface Part {
  readonly name: PartName;
  /** The part's folder. Where one file holds all parts, its path is that file's. */
  readonly folder: Folder;
  /** Path of the weights file, or of the index of several. */
  readonly file: string;
  /** The files that hold the weights, one unless they are sharded. */
  readonly files: readonly WeightsFile[];
  /** Bytes that the weights take in memory. */
  readonly size: number;
  /** config.json as it stands; inferred where one file holds all parts. */
  readonly config: Readonly<Record<string, unknown>>;
  /** The tensors of all files, by the names that the network gives them, as if the files followed each other. */
  readonly header: Header;
  /** Of the weights file; of several, of their hashes. */
  readonly sha256: string;
  /** Whether the files are an ONNX export: they are read alone, and what is saved is a safetensors file in their place. */
  readonly isGraph?: boolean;
  /** What the reader of a report should know about how this part was read. */
  readonly notes: readonly string[];
}

/** Class that config.json must name: diffusers writes `_class_name`, transformers `architectures`. */
const classes: Readonly<Record<PartName, readonly string[]>> = {
  unet: ["UNet2DConditionModel"],
  text_encoder: ["CLIPTextModel"],
  text_encoder_2: ["CLIPTextModelWithProjection"],
  vae: ["AutoencoderKL"],
  clip: ["CLIPModel"],
};

/** Name under which diffusers and transformers look for weights, without its ending. */
export const stems: Readonly<Record<PartName, string>> = {
  unet: "diffusion_pytorch_model",
  text_encoder: "model",
  text_encoder_2: "model",
  vae: "diffusion_pytorch_model",
  clip: "model",
};

const Config = Schema.Record(Schema.String, Schema.Unknown);

/** What Optimum's pipelines call the graphs that they save, and the classes that these were exported from. */
const EXPORTED: Readonly<Record<string, string | undefined>> = {
  ORTUnet: "UNet2DConditionModel",
  ORTVae: "AutoencoderKL",
  ORTVaeDecoder: "AutoencoderKL",
  ORTVaeEncoder: "AutoencoderKL",
  // transformers' class stands beside it.
  ORTTextEncoder: undefined,
};

/** A config with the class of the network that it describes, whatever saved it. */
const ofNetwork = ({ _class_name: name, ...config }: Part["config"]): Part["config"] => {
  const own = typeof name === "string" && Object.hasOwn(EXPORTED, name) ? EXPORTED[name] : name;
  return own === undefined ? config : { _class_name: own, ...config };
};

/** Classes that a config.json names. */
export const classesOf = (config: Readonly<Record<string, unknown>>): string[] => {
  const { _class_name, architectures } = ofNetwork(config);
  return [_class_name, architectures].flat().filter((name) => typeof name === "string");
};

/** Which part a folder holds by its config.json, or undefined when it says nothing of the kind. */
export const recognise = Effect.fnUntraced(function* (folder: Folder) {
  const config = yield* readJson(folder, "config.json", Config);
  const named = config === undefined ? [] : classesOf(config);
  const names: readonly PartName[] = ["unet", "text_encoder", "text_encoder_2", "vae", "clip"];
  return names.find((name) => classes[name].some((c) => named.includes(c)));
});

/** Opens every shard of an index, and checks that each tensor lies in the one that the index names, and in no other. */
const openShards = Effect.fnUntraced(function* (
  folder: Folder,
  index: string,
  shards: ReadonlyMap<string, string>,
) {
  const files: WeightsFile[] = [];
  const seen = new Map<string, string>();
  for (const shard of [...new Set(shards.values())].sort()) {
    const path = yield* fileIn(folder, shard);
    if (path === undefined) {
      return yield* new BundleError({
        file: join(folder.path, shard),
        problem: `is missing; ${basename(index)} says that it holds ${
          [...shards.values()].filter((s) => s === shard).length
        } tensors`,
        expected: "every file that the index names",
        hint: "Was the download cut off? Fetch the file again.",
      });
    }
    const scanned = yield* scanFile(path);
    yield* checkFinite(scanned, scanned.header.entries.keys());
    for (const key of scanned.header.entries.keys()) {
      const [earlier, said] = [seen.get(key), shards.get(key)];
      if (earlier !== undefined) {
        return yield* new BundleError({ file: path, key, problem: `holds ${key}, and so does ${earlier}` });
      }
      if (said !== shard) {
        return yield* new BundleError({
          file: path,
          key,
          problem: `holds ${key}, which ${basename(index)} ${
            said === undefined ? "does not name" : `puts into ${said}`
          }`,
          hint: "The index and the files are not from the same model.",
        });
      }
      seen.set(key, shard);
    }
    files.push(wholeFile(scanned));
  }
  for (const [key, shard] of shards) {
    if (!seen.has(key)) {
      return yield* new BundleError({
        file: join(folder.path, shard),
        key,
        problem: `does not hold ${key}, which ${basename(index)} puts there`,
        hint: "The index and the files are not from the same model.",
      });
    }
  }
  return files;
});

/** One file's hash; several files' as one. */
export const hashOf = (files: readonly Pick<WeightsFile, "path" | "sha256">[]): string =>
  files.length === 1
    ? files[0].sha256
    : createHash("sha256").update(files.map(({ path, sha256 }) => `${sha256}  ${basename(path)}\n`).join("")).digest(
      "hex",
    );

const sizeNote = (header: Header, { file, bytes }: FoundWeights): string[] => {
  const there = [...header.entries.values()].reduce((n, { begin, end }) => n + end - begin, 0);
  return bytes === undefined || bytes === there
    ? []
    : [`${basename(file)} speaks of ${bytes} bytes of weights, its files hold ${there}`];
};

/**
 * Opens one part: reads its config and headers, and its weights once, to hash them and to find values that are not numbers.
 * @param folder the folder that holds config.json and the weights
 * @param options `rest`: more folders of an ONNX export, where a part became several graphs; `config`: what stands for a config.json
 * that is missing
 */
export const openPart = Effect.fn("openPart")(function* (
  name: PartName,
  folder: Folder,
  options: { readonly rest?: readonly Folder[]; readonly config?: Part["config"] | undefined } = {},
): Effect.fn.Return<Part, BundleError> {
  const given = (yield* readJson(folder, "config.json", Config)) ?? options.config;
  if (given === undefined) {
    const isExport = (yield* fileIn(folder, GRAPH)) !== undefined;
    return yield* new BundleError({
      file: join(folder.path, "config.json"),
      problem: "is missing",
      expected: `the config of a ${classes[name][0]}`,
      ...(isExport
        ? {
          hint:
            "Some exporters save none: give the diffusers folder of such a model with --config (no weights are read).",
        }
        : {}),
    });
  }
  const config = ofNetwork(given);
  const named = classesOf(config);
  if (!classes[name].some((c) => named.includes(c))) {
    return yield* new BundleError({
      file: join(folder.path, "config.json"),
      problem: `describes ${named.join(", ") || "no known class"}`,
      key: name === "unet" || name === "vae" ? "_class_name" : "architectures",
      expected: classes[name].join(" or "),
    });
  }
  const found = yield* findWeights(folder, stems[name]);
  const { file, shards, isGraph } = found;
  let files: readonly WeightsFile[];
  let notes: readonly string[] = [];
  if (isGraph) {
    const weights = yield* openExport([folder, ...options.rest ?? []], yield* networkWeights({ name, config, folder }));
    ({ files, notes } = weights);
  } else if (shards === undefined) {
    const scanned = yield* scanFile(file);
    yield* checkFinite(scanned, scanned.header.entries.keys());
    files = [wholeFile(scanned)];
  } else files = yield* openShards(folder, file, shards);
  const header = joinHeaders(files, file);
  const size = files.reduce((n, one) => n + bytesOf(one), 0);
  return {
    name,
    folder,
    file,
    files,
    size,
    config,
    header,
    sha256: hashOf(files),
    ...(isGraph ? { isGraph } : {}),
    notes: [...found.notes, ...notes, ...sizeNote(header, found)],
  };
});
