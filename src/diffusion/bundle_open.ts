/** Opens a model: a diffusers folder or one file, some of its parts perhaps taken from elsewhere. */
import { Effect, Schema } from "effect";
import { createHash } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import {
  type Bundle,
  type BundlePart,
  type BundleParts,
  bundleParts,
  type OpenedWith,
  partOf,
  partsOf,
} from "./bundle.ts";
import { checkFit } from "./bundle_fit.ts";
import { BundleError } from "./errors.ts";
import { fileIn, type Folder, openFolder, readJson, subFolder, system } from "./files.ts";
import { exportedIndex } from "./onnx/index_file.ts";
import { openPart, type Part, type PartName, recognise } from "./part.ts";
import { SchedulerConfig, schedulerNotes } from "./scheduler.ts";
import { type Checkpoint, givenConfig, openCheckpoint } from "./single_file/open.ts";
import type { Prediction } from "./single_file/prediction.ts";
import { stockTokenizer } from "./stock_tokenizer.ts";
import { loadTokenizer } from "./tokenizer_files.ts";
import { pairTokenizers } from "./tokenizer_pair.ts";

export interface OpenOptions {
  readonly replace?: Replacement;
  /** A tokenizer's folder in place of the model's own. */
  readonly tokenizer?: string | undefined;
  /** What the U-Net of a checkpoint in one file answers with; guessed unless told. Folders say so themselves. */
  readonly prediction?: Prediction | undefined;
  /**
   * A diffusers folder whose config.json files, scheduler and tokenizer say what a checkpoint in one file does not, and whose
   * config.json files stand for those that a folder lacks. Its weights are not read. Inferred unless given.
   */
  readonly config?: string | undefined;
}

/** Parts to take from elsewhere: by name, or as folders that say by themselves what they hold. */
export type Replacement = Partial<Readonly<Record<BundlePart, string>>> | readonly string[];

const XL = "StableDiffusionXLPipeline";
const isBundlePart = (name: PartName | undefined): name is BundlePart => bundleParts.some((p) => p === name);
const isList = (replace: Replacement): replace is readonly string[] => Array.isArray(replace);

const Index = Schema.Record(Schema.String, Schema.Unknown);

/** Which parts a folder can lend: itself, by its config.json, or its sub-folders `unet` and `text_encoder`. */
const lent = Effect.fnUntraced(function* (path: string) {
  const folder = yield* openFolder(path, "folder with a replaced part");
  const self = yield* recognise(folder);
  const found = new Map<BundlePart, Folder>();
  if (isBundlePart(self)) found.set(self, folder);
  else {
    for (const name of bundleParts) {
      const sub = yield* subFolder(folder, name);
      if (sub !== undefined) found.set(name, sub);
    }
  }
  if (found.size > 0) return found;
  return yield* new BundleError({
    file: path,
    problem: "holds no part of a model",
    expected: "a folder unet or text_encoder in it, or the config.json of one of them",
  });
});

/** Folder of every replaced part. A list may hold whole folders (`attacks/NAME`): all that they hold is taken. */
const replacements = Effect.fnUntraced(function* (replace: Replacement) {
  const found = new Map<BundlePart, Folder>();
  if (isList(replace)) {
    for (const path of replace) {
      for (const [name, folder] of yield* lent(path)) {
        const earlier = found.get(name);
        if (earlier !== undefined) {
          return yield* new BundleError({
            file: path,
            problem: `replaces ${name}, as ${earlier.path} does`,
            expected: "each part once",
          });
        }
        found.set(name, folder);
      }
    }
    return found;
  }
  for (const name of bundleParts) {
    const path = replace[name];
    if (path === undefined) continue;
    const all = yield* lent(path);
    // A folder for "the text encoder" is whichever of SDXL's two it holds, or both.
    const names: readonly BundlePart[] = name === "text_encoder" ? ["text_encoder", "text_encoder_2"] : [name];
    for (const [part, folder] of all) if (names.includes(part)) found.set(part, folder);
    if (!names.some((n) => all.has(n))) return yield* new BundleError({ file: path, problem: `holds no ${name}` });
  }
  return found;
});

/** model_index.json, when it describes a model that is read here. */
const readIndex = Effect.fnUntraced(function* (root: Folder) {
  const index = yield* readJson(root, "model_index.json", Index);
  const file = join(root.path, "model_index.json");
  if (index === undefined) {
    const part = yield* recognise(root);
    return yield* new BundleError({
      file,
      problem: "is missing",
      expected: "a diffusers folder: model_index.json beside unet, text_encoder, vae, tokenizer and scheduler",
      hint: part === undefined
        ? "Is the model one .safetensors file? Give the path of that file."
        : `This folder holds one part, a ${part}: give the whole model, and this folder as the part that replaces its own.`,
    });
  }
  const kind = String(index._class_name);
  if (/^OV/.test(kind)) {
    return yield* new BundleError({
      file,
      key: "_class_name",
      problem: `describes a ${kind}, an export of a model for another program`,
      expected: "the model that it was exported from: a diffusers folder, or a checkpoint in one .safetensors file",
      hint: "An export has lost the names of its weights. Give the model it came from; its cure can be exported again.",
    });
  }
  const exported = exportedIndex(index);
  if (exported !== undefined) return exported;
  if (kind !== XL && (!kind.startsWith("StableDiffusion") || /XL|3|Upscale|Inpaint|Depth/.test(kind))) {
    return yield* new BundleError({
      file,
      key: "_class_name",
      problem: `describes a ${kind}`,
      expected: `StableDiffusionPipeline (Stable Diffusion 1.x or 2.x) or ${XL}`,
    });
  }
  return index;
});

/** SHA-256 of the small files that are read besides the weights. */
export const hashFiles = Effect.fnUntraced(function* (label: string, folder: Folder, names: readonly string[]) {
  const hashes: [string, string][] = [];
  for (const name of names) {
    const path = yield* fileIn(folder, name);
    if (path === undefined) continue;
    const bytes = yield* system(path, "cannot be read", () => readFile(path));
    hashes.push([label + name, createHash("sha256").update(bytes).digest("hex")]);
  }
  return hashes;
});

const needed = Effect.fnUntraced(function* (root: Folder, name: string) {
  const folder = yield* subFolder(root, name);
  return folder ??
    (yield* new BundleError({
      file: join(root.path, name),
      problem: "is missing",
      expected: `the model's folder ${name}`,
    }));
});

/** A tokenizer, and the hashes of its files. */
const openTokenizer = Effect.fnUntraced(function* (folder: Folder, positions: number) {
  const tokenizer = yield* loadTokenizer(folder, positions);
  return { tokenizer, hashes: yield* hashFiles("tokenizer/", folder, tokenizerFiles) };
});

/** Positions of a text encoder. */
const positionsOf = ({ config: { max_position_embeddings: positions } }: Part): number =>
  typeof positions === "number" ? positions : 77;

/** What a model was opened with, for the next time. */
const openedWith = (
  replaced: ReadonlyMap<BundlePart, Folder>,
  { tokenizer, prediction, config }: OpenOptions,
): OpenedWith => ({
  replace: Object.fromEntries([...replaced].map(([name, folder]) => [name, folder.path])),
  ...(tokenizer === undefined ? {} : { tokenizer }),
  ...(prediction === undefined ? {} : { prediction }),
  ...(config === undefined ? {} : { config }),
});

const hasOneEncoder = (file: string) =>
  new BundleError({ file, problem: "is to replace a second text encoder, but the model has one" });

/**
 * The tokenizer of a checkpoint in one file, which holds none: CLIP's own, unless a folder has another.
 * @param words the folder of the first, where it is told
 */
const fileTokenizer = Effect.fnUntraced(function* (
  { paddings: [padding, other], folder }: Checkpoint,
  parts: BundleParts,
  words: Folder | undefined,
  config: Folder | undefined,
) {
  const positions = positionsOf(parts.text_encoder);
  const first = words === undefined
    ? { tokenizer: yield* stockTokenizer(padding, positions), hashes: [] }
    : yield* openTokenizer(words, positions);
  const part = parts.text_encoder_2;
  if (part === undefined) return first;
  const own = config && (yield* subFolder(config, "tokenizer_2"));
  const second = own === undefined
    ? yield* stockTokenizer(other ?? padding, positionsOf(part))
    : yield* loadTokenizer(own, positionsOf(part));
  return {
    tokenizer: yield* pairTokenizers(first.tokenizer, second, { folder: own ?? folder, part }),
    hashes: own === undefined ? first.hashes : [
      ...first.hashes,
      ...yield* hashFiles("tokenizer_2/", own, tokenizerFiles),
    ],
  };
});

/** Opens a checkpoint in one .safetensors file. */
const openFile = Effect.fnUntraced(function* (
  path: string,
  options: OpenOptions,
): Effect.fn.Return<Bundle, BundleError> {
  const config = options.config === undefined ? undefined : yield* openFolder(options.config, "folder of configs");
  const checkpoint = yield* openCheckpoint(path, { prediction: options.prediction, config });
  const { folder: root, scheduler } = checkpoint;
  const replaced = yield* replacements(options.replace ?? {});
  const open = Effect.fnUntraced(function* (name: BundlePart, own: Part) {
    const folder = replaced.get(name);
    return folder === undefined ? own : yield* openPart(name, folder);
  });
  const { unet, text_encoder, text_encoder_2, vae } = checkpoint.parts;
  const other = replaced.get("text_encoder_2");
  if (other !== undefined && text_encoder_2 === undefined) return yield* hasOneEncoder(other.path);
  const parts: BundleParts = {
    unet: yield* open("unet", unet),
    text_encoder: yield* open("text_encoder", text_encoder),
    ...(text_encoder_2 === undefined ? {} : { text_encoder_2: yield* open("text_encoder_2", text_encoder_2) }),
    vae: yield* open("vae", vae),
  };
  const words = options.tokenizer === undefined
    ? config && (yield* subFolder(config, "tokenizer"))
    : yield* openFolder(options.tokenizer, "tokenizer folder");
  const { tokenizer, hashes: own } = yield* fileTokenizer(checkpoint, parts, words, config);
  yield* checkFit(parts, tokenizer);
  const hashes = new Map([["checkpoint", checkpoint.file.sha256] as const, ...own.map(([k, v]) => [k, v] as const)]);
  if (config !== undefined) {
    const names = ["scheduler/scheduler_config.json", ...bundleParts.map((name) => `${name}/config.json`)];
    for (const [file, hash] of yield* hashFiles("config/", config, names)) hashes.set(file, hash);
  }
  for (const [name, folder] of replaced) {
    for (const [file, hash] of yield* hashFiles(`${name}/`, folder, ["config.json"])) hashes.set(file, hash);
    hashes.set(`${name}/weights`, (yield* partOf({ parts, root }, name)).sha256);
  }
  const notes = [
    ...checkpoint.notes,
    words === undefined
      ? "the file holds no tokenizer; CLIP's own is used"
      : `the tokenizer is taken from ${words.path}`,
    ...[...replaced].map(([name, folder]) => `${name} is taken from ${folder.path}`),
    ...partsOf({ parts }).flatMap(([, part]) => part.notes),
    ...schedulerNotes(scheduler),
  ];
  const index = { _class_name: checkpoint.pipeline };
  const opened = openedWith(replaced, options);
  return { root, parts, tokenizer, scheduler, index, changed: new Map(), hashes, notes, opened, checkpoint };
});

/** A file that a model could be, as an absolute path; undefined for a folder, or for nothing. */
const modelFile = Effect.fnUntraced(function* (path: string) {
  const full = resolve(path);
  const info = yield* Effect.promise(() => stat(full).catch(() => undefined));
  return info?.isFile() && /\.safetensors$/i.test(full) ? full : undefined;
});

/**
 * Opens a model for reading. Every weight is looked at once (see openPart).
 * @param path a diffusers folder, or a checkpoint in one .safetensors file
 */
export const openBundle = Effect.fn("openBundle")(function* (
  path: string,
  options: OpenOptions = {},
): Effect.fn.Return<Bundle, BundleError> {
  const file = yield* modelFile(path);
  if (file !== undefined) return yield* openFile(file, options);
  const root = yield* openFolder(path, "model folder");
  const index = yield* readIndex(root);
  const replaced = yield* replacements(options.replace ?? {});
  const described = options.config === undefined ? undefined : yield* openFolder(options.config, "folder of configs");
  const open = Effect.fnUntraced(function* (name: BundlePart) {
    const other = replaced.get(name);
    if (other !== undefined) return yield* openPart(name, other);
    const config = yield* givenConfig(described, name);
    // An export of a VAE is two graphs.
    const decoder = name === "vae" && (yield* subFolder(root, name)) === undefined
      ? yield* subFolder(root, "vae_decoder")
      : undefined;
    if (decoder !== undefined) {
      return yield* openPart(name, decoder, { rest: [yield* needed(root, "vae_encoder")], config });
    }
    return yield* openPart(name, yield* needed(root, name), { config });
  });
  const xl = index._class_name === XL;
  const other = replaced.get("text_encoder_2");
  if (!xl && other !== undefined) return yield* hasOneEncoder(other.path);
  const parts: BundleParts = {
    unet: yield* open("unet"),
    text_encoder: yield* open("text_encoder"),
    ...(xl ? { text_encoder_2: yield* open("text_encoder_2") } : {}),
    vae: yield* open("vae"),
  };
  const { tokenizer: first, hashes: words } = yield* openTokenizer(
    yield* (options.tokenizer === undefined
      ? needed(root, "tokenizer")
      : openFolder(options.tokenizer, "tokenizer folder")),
    positionsOf(parts.text_encoder),
  );
  const second = parts.text_encoder_2 && { folder: yield* needed(root, "tokenizer_2"), part: parts.text_encoder_2 };
  const tokenizer = second === undefined ? first : yield* pairTokenizers(
    first,
    yield* loadTokenizer(second.folder, positionsOf(second.part)),
    second,
  );
  const schedulerFolder = yield* needed(root, "scheduler");
  const scheduler = yield* readJson(schedulerFolder, "scheduler_config.json", SchedulerConfig);
  if (scheduler === undefined) {
    return yield* new BundleError({ file: join(schedulerFolder.path, "scheduler_config.json"), problem: "is missing" });
  }
  yield* checkFit(parts, tokenizer);
  const hashes = new Map([
    ...yield* hashFiles("", root, ["model_index.json"]),
    ...yield* hashFiles("scheduler/", schedulerFolder, ["scheduler_config.json"]),
    ...words,
    ...(second === undefined ? [] : yield* hashFiles("tokenizer_2/", second.folder, tokenizerFiles)),
  ]);
  for (const [name, part] of partsOf({ parts })) {
    for (const [file, hash] of yield* hashFiles(`${name}/`, part.folder, ["config.json"])) {
      hashes.set(file, hash);
    }
    hashes.set(`${name}/weights`, part.sha256);
  }
  if (described !== undefined) {
    const names = bundleParts.map((name) => `${name}/config.json`);
    for (const [file, hash] of yield* hashFiles("config/", described, names)) hashes.set(file, hash);
  }
  const notes = [
    ...[...replaced].map(([name, folder]) => `${name} is taken from ${folder.path}`),
    ...partsOf({ parts }).flatMap(([, part]) => part.notes),
    ...(options.tokenizer === undefined ? [] : [`the tokenizer is taken from ${options.tokenizer}`]),
    ...schedulerNotes(scheduler),
  ];
  const opened = openedWith(replaced, options);
  return { root, parts, tokenizer, scheduler, index, changed: new Map(), hashes, notes, opened };
});

const tokenizerFiles = [
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "vocab.json",
  "merges.txt",
  "added_tokens.json",
];
