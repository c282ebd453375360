/** Under which names a part's folder holds its weights: one file or several with an index, plain or of a variant. */
import { Effect, Schema } from "effect";
import { readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { BundleError } from "./errors.ts";
import { fileIn, type Folder, readJson, system } from "./files.ts";
import { GRAPH } from "./onnx/open.ts";

/** Weights as a folder holds them, before they are read. */
export interface FoundWeights {
  /** The weights file, or the index of several. */
  readonly file: string;
  /** Shard that holds each tensor, by key; undefined where one file holds all. */
  readonly shards?: ReadonlyMap<string, string>;
  /** Bytes of all tensors, as the index says. */
  readonly bytes?: number;
  /** Whether the weights are those of an ONNX graph, `file`. */
  readonly isGraph?: boolean;
  readonly notes: readonly string[];
}

/** Files that hold weights, in whatever form, and their indices. */
export const isWeights = (name: string): boolean =>
  /\.(safetensors|bin|ckpt|pt|pth|msgpack|h5|onnx|onnx[._]data|pb|pkl|gguf|xml)(\.index(\.\w+)?\.json)?$/i.test(name);

/** Most shards that an index may name, and the most bytes that it may have. */
const MAX_SHARDS = 1000;
const MAX_INDEX = 32 << 20;

const Index = Schema.Struct({
  metadata: Schema.optionalKey(Schema.Struct({ total_size: Schema.optionalKey(Schema.Finite) })),
  weight_map: Schema.Record(Schema.String, Schema.String),
});

/** Variants in the order in which they are taken; any other comes after, by name. */
const VARIANTS = ["fp32", "fp16", "bf16"];

interface Candidate {
  readonly name: string;
  /** `fp16` of `model.fp16.safetensors`; none where the name is the plain one. */
  readonly variant: string | undefined;
  readonly isIndex: boolean;
}

/** What a file name means for weights called `stem`, in the ways in which diffusers and transformers write them. */
const candidate = (stem: string, name: string): Candidate | undefined => {
  const rest = name.startsWith(`${stem}.`) ? name.slice(stem.length + 1) : "";
  const [, before, index, after] = /^(?:(\w+)\.)?safetensors(\.index(?:\.(\w+))?\.json)?$/.exec(rest) ?? [];
  if (!/^(?:\w+\.)?safetensors(?:\.index(?:\.\w+)?\.json)?$/.test(rest)) return undefined;
  return { name, variant: before ?? after, isIndex: index !== undefined };
};

const rank = ({ variant, isIndex }: Candidate): number => {
  const at = variant === undefined ? -1 : VARIANTS.indexOf(variant);
  return 2 * (variant !== undefined && at < 0 ? VARIANTS.length : at) + (isIndex ? 1 : 0);
};

/** Reads an index: a map from tensors to shards, each a file of the same folder. */
const readIndex = Effect.fnUntraced(function* (folder: Folder, name: string) {
  const file = join(folder.path, name);
  const index = yield* readJson(folder, name, Index, MAX_INDEX);
  if (index === undefined) return yield* new BundleError({ file, problem: "is gone" });
  const shards = new Map(Object.entries(index.weight_map));
  const files = new Set(shards.values());
  const outside = [...files].find((shard) => basename(shard) !== shard || !/^[\w.-]+\.safetensors$/.test(shard));
  if (outside !== undefined) {
    return yield* new BundleError({
      file,
      key: outside,
      problem: `names ${JSON.stringify(outside)} as a file of weights`,
      expected: "names of .safetensors files in the same folder",
      hint: "An index has no reason to point elsewhere; do not trust this folder.",
    });
  }
  if (files.size === 0 || files.size > MAX_SHARDS) {
    return yield* new BundleError({ file, problem: `names ${files.size} files`, expected: `1 to ${MAX_SHARDS}` });
  }
  const bytes = index.metadata?.total_size;
  return { shards, ...(bytes === undefined ? {} : { bytes }) };
});

/**
 * Finds the weights of a part, or refuses clearly. The plain name is taken before a variant's, and one file before several.
 * @param stem `model` or `diffusion_pytorch_model`
 */
export const findWeights = Effect.fnUntraced(function* (
  folder: Folder,
  stem: string,
): Effect.fn.Return<FoundWeights, BundleError> {
  const there = (yield* system(folder.path, "cannot be listed", () => readdir(folder.path))).filter(isWeights);
  const found = there.map((name) => candidate(stem, name)).filter((c) => c !== undefined)
    .toSorted((a, b) => rank(a) - rank(b) || (a.name < b.name ? -1 : 1));
  const [chosen] = found;
  const expected = `${stem}.safetensors, or ${stem}.safetensors.index.json and its shards`;
  if (chosen === undefined) {
    const safe = there.filter((f) => /\.safetensors/.test(f));
    if (safe.length === 0 && there.includes(GRAPH)) return { file: join(folder.path, GRAPH), notes: [], isGraph: true };
    if (safe.length === 0 && there.some((f) => f.endsWith(".onnx"))) {
      return yield* new BundleError({
        file: folder.path,
        problem: `holds an ONNX export under another name than ${GRAPH}: ${
          there.filter((f) => f.endsWith(".onnx")).join(", ")
        }`,
        expected: `${expected}, or ${GRAPH}`,
        hint: "Optimised or quantised graphs hold no weights as they were; give the one that was exported first.",
      });
    }
    if (safe.length === 0 && there.length > 0) {
      return yield* new BundleError({
        file: folder.path,
        problem: `holds no safetensors weights, only ${there.join(", ")}`,
        expected,
        hint:
          "Pickled weights can run code when they are opened, so they are not read here. Convert them where that does no harm: " +
          "from_pretrained(FOLDER, use_safetensors=False) and save_pretrained(NEW_FOLDER, safe_serialization=True).",
      });
    }
    return yield* new BundleError({
      file: folder.path,
      problem: there.length === 0 ? "holds no weights" : `holds its weights under unknown names: ${there.join(", ")}`,
      expected,
    });
  }
  const file = yield* fileIn(folder, chosen.name);
  if (file === undefined) return yield* new BundleError({ file: join(folder.path, chosen.name), problem: "is gone" });
  const others = found.slice(1).map(({ name }) => name);
  const notes = chosen.variant === undefined ? [] : [
    `${basename(folder.path)} has no ${stem}.safetensors; its variant ${chosen.variant} is read (${chosen.name}${
      others.length === 0 ? "" : `, not ${others.join(", ")}`
    })`,
  ];
  return { file, notes, ...(chosen.isIndex ? yield* readIndex(folder, chosen.name) : {}) };
});
