/** A LoRA file against a model: which layers it changes, with every name, shape and number checked before it is used. */
import { Effect } from "effect";
import type { FileHandle } from "node:fs/promises";
import { basename } from "node:path";
import { dataStart, type Entry, type Header, parseHeader, readTensor } from "../tensor/safetensors.ts";
import { sameDims, type Tensor } from "../tensor/tensor.ts";
import { type Bundle, bundleParts } from "./bundle.ts";
import { BundleError } from "./errors.ts";
import { readFully, system, withFile } from "./files.ts";
import { adapterScale } from "./lora_metadata.ts";
import {
  FOREIGN,
  type Layer,
  type LayerFinder,
  layerFinder,
  type LoraRole,
  madeFor,
  parseLoraKey,
  type Sample,
} from "./lora_names.ts";
import { networkKeys } from "./networks.ts";
import { tensors } from "./part.ts";
import { scanWeights } from "./scan.ts";

/** The factors of one layer: its weight changes by scale · up · down. */
export interface LoraPair {
  readonly layer: Layer;
  readonly stem: string;
  /** Names of the tensors. */
  readonly down: string;
  readonly up: string;
  readonly mid?: string;
  readonly alpha?: string;
  readonly rank: number;
  /** alpha / rank. */
  readonly scale: number;
}

export interface LoraFile {
  readonly file: string;
  readonly header: Header;
  readonly size: number;
  readonly modified: number;
  readonly sha256: string;
  readonly pairs: readonly LoraPair[];
  /** How its names are written, each way once. */
  readonly samples: readonly Sample[];
  readonly finder: LayerFinder;
}

/** Ranks beyond this are no LoRA's. */
const MAX_RANK = 4096;
/** alpha / rank beyond this is no trainer's; ordinary ones lie below 10. */
const MAX_SCALE = 1000;

const some = (list: readonly string[]): string => list.slice(0, 4).join(", ") + (list.length > 4 ? ", …" : "");
const shape = (dims: readonly number[]): string => `[${dims.join(", ")}]`;

/** Every layer of a model that a LoRA may change: the matrices and convolutions of its U-Net and text encoders. */
export const loraLayers = Effect.fnUntraced(function* (bundle: Bundle) {
  const layers: Layer[] = [];
  for (const part of bundleParts) {
    const opened = bundle.parts[part];
    if (part === "vae" || opened === undefined) continue;
    for (const [name, key] of yield* networkKeys(opened)) {
      const dims = opened.header.entries.get(key)?.dims ?? [];
      if ((dims.length !== 2 && dims.length !== 4) || !name.endsWith(".weight") || name.includes("embedding.weight")) {
        continue;
      }
      // As LoRAs call it; transformers 5 leaves `text_model.` out.
      const inText = part !== "unet" && !/^text_(model|projection)\./.test(name);
      layers.push({ part, name: `${inText ? "text_model." : ""}${name.slice(0, -".weight".length)}`, key, dims });
    }
  }
  return layers;
});

/** Refuses what is no safetensors file before a byte of it is interpreted. */
const refusePickle = Effect.fnUntraced(function* (file: string, first: Uint8Array) {
  const zip = first[0] === 0x50 && first[1] === 0x4b, pickle = first[0] === 0x80 && first[1] >= 2 && first[1] <= 5;
  if (!zip && !pickle && !/\.(pt|pth|bin|ckpt|pkl)$/i.test(file)) return;
  return yield* new BundleError({
    file,
    problem: "is a pickled LoRA",
    expected: "a .safetensors file",
    hint: "Opening a pickle can run code, so it is not read here. Convert it where that does no harm: " +
      'safetensors.torch.save_file(torch.load(FILE, map_location="cpu", weights_only=True), "lora.safetensors").',
  });
});

interface Group {
  readonly stem: string;
  readonly keys: Partial<Record<LoraRole, string>>;
  readonly suffix: Sample["suffix"] | undefined;
}

/** The file's tensors by the layers that they name. Refuses what is something else than a LoRA. */
const groupKeys = Effect.fnUntraced(function* (file: string, { entries, metadata }: Header) {
  const keys = [...entries.keys()];
  for (const [pattern, what] of FOREIGN) {
    const found = keys.filter((key) => pattern.test(key));
    if (found.length > 0) {
      return yield* new BundleError({
        file,
        key: found[0],
        problem: `holds ${what}: ${some(found)}`,
        expected: "a plain LoRA: an up and a down factor for each layer",
        hint:
          "Merge it into a model with the tool that made it, save that model as a diffusers folder, and give the folder.",
      });
    }
  }
  const groups = new Map<string, Group>();
  const others: string[] = [];
  for (const key of keys) {
    const parsed = parseLoraKey(key);
    if (parsed === undefined) {
      others.push(key);
      continue;
    }
    const { stem, role, suffix } = parsed;
    const there = groups.get(stem);
    groups.set(stem, { stem, keys: { ...there?.keys, [role]: key }, suffix: there?.suffix ?? suffix });
  }
  if (groups.size === 0 || others.length > 0) {
    const model = madeFor(keys, metadata);
    return yield* new BundleError({
      file,
      ...(others.length > 0 ? { key: others[0] } : {}),
      problem: groups.size === 0
        ? `holds no LoRA${
          others.length > 0 ? `; its ${others.length} tensors are called ${some(others)}` : ", nothing at all"
        }`
        : `holds ${others.length} tensors that are no part of a LoRA: ${some(others)}`,
      expected: "names such as lora_unet_….lora_down.weight or unet.….lora_A.weight",
      ...(model === undefined ? {} : { hint: `It speaks of ${model}.` }),
    });
  }
  return [...groups.values()];
});

/** The name that shares most with `text` at its two ends. */
const nearest = (text: string, names: Iterable<string>): string | undefined => {
  let best: string | undefined, most = 0;
  for (const name of names) {
    const n = Math.min(name.length, text.length);
    let head = 0, tail = 0;
    while (head < n && name[head] === text[head]) head++;
    while (tail < n - head && name[name.length - 1 - tail] === text[text.length - 1 - tail]) tail++;
    if (head + tail > most) [best, most] = [name, head + tail];
  }
  return best;
};

/** Each group's layer. Fails where a name fits none, or two. */
const findLayers = Effect.fnUntraced(
  function* (
    file: string,
    { entries, metadata }: Header,
    groups: readonly Group[],
    layers: readonly Layer[],
    finder: LayerFinder,
  ) {
    const found = groups.map((group) => ({ group, means: finder.find(group.stem, group.suffix) }));
    const lost = found.filter(({ means }) => means.length === 0).map(({ group }) => group.stem);
    if (lost.length > 0) {
      const model = madeFor(entries.keys(), metadata);
      const like = nearest(
        lost[0].replace(/^(lora_(unet|te\d?)_|unet\.|text_encoder(_2)?\.)/, "").replaceAll(".", "_"),
        [
          ...layers.map(({ name }) => name.replaceAll(".", "_")),
        ],
      );
      return yield* new BundleError({
        file,
        key: lost[0],
        problem: `names ${lost.length} of ${groups.length} layers that this model does not have: ${some(lost)}`,
        expected: `layers of this model${like === undefined ? "" : `; the nearest to the first is ${like}`}`,
        hint: model === undefined
          ? "Was it made for another kind of model?"
          : `Its names or its metadata say that it was made for ${model}.`,
      });
    }
    const seen = new Map<Layer, string>();
    for (const { group: { stem }, means } of found) {
      const twice = means.length > 1 ? means.map(({ layer }) => layer.name) : undefined;
      const earlier = seen.get(means[0].layer);
      if (twice !== undefined || earlier !== undefined) {
        return yield* new BundleError({
          file,
          key: stem,
          problem: twice !== undefined
            ? `names ${stem}, which may mean ${twice.join(" or ")}`
            : `changes ${means[0].layer.name} twice, as ${earlier} and as ${stem}`,
          expected: "each layer once",
        });
      }
      seen.set(means[0].layer, stem);
    }
    return found.map(({ group, means: [{ layer, spelling }] }) => ({ group, layer, spelling }));
  },
);

/** Dimensions without the 1×1 of a convolution that is a matrix in truth. */
const trimmed = (dims: readonly number[]): readonly number[] =>
  dims.length === 4 && dims[2] === 1 && dims[3] === 1 ? dims.slice(0, 2) : dims;

/** What the shapes of a pair should be, or undefined where they are right. */
const misfit = (layer: Layer, down: Entry, up: Entry, mid: Entry | undefined): string | undefined => {
  const [out, ...inner] = trimmed(layer.dims);
  const rank = down.dims[0];
  const wanted = `a layer of ${shape(layer.dims)} takes down [r, ${inner.join(", ")}] and up [${out}, r]`;
  const said = `down is ${shape(down.dims)}, up ${shape(up.dims)}${
    mid === undefined ? "" : `, mid ${shape(mid.dims)}`
  }`;
  const fits = mid === undefined
    ? sameDims(trimmed(down.dims), [rank, ...inner]) && sameDims(trimmed(up.dims), [out, rank])
    : sameDims(trimmed(down.dims), [rank, inner[0]]) && sameDims(trimmed(up.dims), [out, rank]) &&
      sameDims(trimmed(mid.dims), [rank, rank, ...inner.slice(1)]);
  return fits ? undefined : `${said}; ${wanted}`;
};

/** Element types that factors have. */
const FLOATS: readonly string[] = ["F32", "F16", "BF16", "F64"];

const pairOf = Effect.fnUntraced(function* (
  handle: FileHandle,
  file: string,
  header: Header,
  { stem, keys }: Group,
  layer: Layer,
) {
  const bad = (key: string, problem: string, more: { expected?: string; hint?: string } = {}) =>
    new BundleError({ file, key, problem, ...more });
  const { down, up, mid, alpha } = keys;
  if (down === undefined || up === undefined) {
    const there = Object.values(keys).join(", ");
    return yield* bad(stem, `holds only one factor of ${layer.name}: ${there}`, {
      expected: "an up and a down factor for each layer",
      hint: "Was the file cut by hand? Fetch it again.",
    });
  }
  const entry = (key: string): Entry => header.entries.get(key)!;
  for (const key of [down, up, mid ?? down]) {
    if (FLOATS.includes(entry(key).dtype)) continue;
    return yield* bad(key, `holds ${key} as ${entry(key).dtype}`, { expected: `one of ${FLOATS.join(", ")}` });
  }
  const rank = entry(down).dims[0] ?? 0;
  if (rank === 0 || rank > MAX_RANK) {
    return yield* bad(down, `gives ${layer.name} the rank ${rank}`, { expected: `a rank from 1 to ${MAX_RANK}` });
  }
  const wrong = misfit(layer, entry(down), entry(up), mid === undefined ? undefined : entry(mid));
  if (wrong !== undefined) {
    const model = madeFor(header.entries.keys(), header.metadata);
    return yield* bad(down, `does not fit ${layer.name}: ${wrong}`, {
      hint: model === undefined
        ? "Was it made for a model of another width (Stable Diffusion 2.x reads texts of width 1024, 1.x of 768)?"
        : `It says that it was made for ${model}.`,
    });
  }
  const given = alpha === undefined
    ? adapterScale(header.metadata, layer, rank)
    : yield* alphaOf(handle, file, header, alpha);
  const scale = given === undefined ? 1 : typeof given === "number" ? given / rank : given.scale;
  if (!Number.isFinite(scale) || scale === 0 || Math.abs(scale) > MAX_SCALE) {
    return yield* bad(alpha ?? down, `scales the change of ${layer.name} by ${scale} (alpha over a rank of ${rank})`, {
      expected: `a factor other than 0, of at most ${MAX_SCALE}`,
      hint: "Such an alpha was not made by training; the file is damaged, or made to break something.",
    });
  }
  const pair: LoraPair = {
    layer,
    stem,
    down,
    up,
    ...(mid === undefined ? {} : { mid }),
    ...(alpha === undefined ? {} : { alpha }),
    rank,
    scale,
  };
  return pair;
});

/** One tensor of the file. */
export const readLoraTensor = Effect.fnUntraced(function* (handle: FileHandle, header: Header, key: string) {
  const entry = header.entries.get(key);
  if (entry === undefined) return yield* new BundleError({ file: header.file, key, problem: `holds no tensor ${key}` });
  const bytes = new Uint8Array(entry.end - entry.begin);
  yield* readFully(handle, header.file, bytes, entry.begin);
  const alone = { ...header, entries: new Map([[key, { ...entry, begin: 0, end: bytes.length }]]) };
  return yield* tensors((): Tensor => readTensor(bytes, alone, key));
});

const alphaOf = Effect.fnUntraced(function* (handle: FileHandle, file: string, header: Header, key: string) {
  const entry = header.entries.get(key)!;
  const { data } = entry.end - entry.begin > 8 ? { data: [] } : yield* readLoraTensor(handle, header, key);
  if (data.length === 1) return data[0];
  return yield* new BundleError({
    file,
    key,
    problem: `holds ${key} of shape ${shape(entry.dims)}`,
    expected: "one number",
  });
});

/**
 * Opens a LoRA for a model. Its values are looked at once, to hash them and to find those that are no numbers; they stay on
 * disk.
 * @param path a .safetensors file
 */
export const openLora = Effect.fn("openLora")(function* (
  bundle: Bundle,
  path: string,
): Effect.fn.Return<LoraFile, BundleError> {
  return yield* withFile(path, (handle) =>
    Effect.gen(function* () {
      const info = yield* system(path, "cannot be read", () => handle.stat());
      if (!info.isFile()) {
        return yield* new BundleError({
          file: path,
          problem: "is a folder",
          expected: "the .safetensors file of a LoRA",
          hint: "diffusers calls it pytorch_lora_weights.safetensors.",
        });
      }
      const { size, mtimeMs } = info;
      const first = new Uint8Array(Math.min(8, size));
      yield* readFully(handle, path, first, 0);
      yield* refusePickle(path, first);
      const head = new Uint8Array(yield* tensors(() => dataStart(first, size, path)));
      yield* readFully(handle, path, head, 0);
      const header = yield* tensors(() => parseHeader(head, size, path));
      const groups = yield* groupKeys(path, header);
      const layers = yield* loraLayers(bundle);
      const perBlock = bundle.parts.unet.config.layers_per_block;
      const finder = layerFinder(layers, typeof perBlock === "number" ? perBlock : 2);
      const found = yield* findLayers(path, header, groups, layers, finder);
      const pairs: LoraPair[] = [];
      for (const { group, layer } of found) pairs.push(yield* pairOf(handle, path, header, group, layer));
      const { sha256, nonFinite } = yield* scanWeights(handle, path, size, header.entries);
      for (const [key, count] of nonFinite) {
        return yield* new BundleError({
          file: path,
          key,
          problem: `holds ${count} values that are not finite numbers in ${key}`,
          expected: "finite factors",
          hint: `The file (${basename(path)}) is damaged, or its training diverged; fetch it again.`,
        });
      }
      const samples = new Map<string, Sample>();
      for (const { group: { suffix }, layer: { part }, spelling } of found) {
        if (suffix === undefined) continue;
        const sample = { part, spelling, suffix };
        const id = JSON.stringify(sample);
        if (!samples.has(id)) samples.set(id, sample);
      }
      return { file: path, header, size, modified: mtimeMs, sha256, pairs, samples: [...samples.values()], finder };
    }));
});

/** Opens the file again, if nothing changed it meanwhile. */
export const withLora = <A, E>(lora: LoraFile, use: (handle: FileHandle) => Effect.Effect<A, E>) =>
  withFile(lora.file, (handle) =>
    Effect.gen(function* () {
      const { size, mtimeMs } = yield* system(lora.file, "cannot be read", () => handle.stat());
      if (size !== lora.size || mtimeMs !== lora.modified) {
        return yield* new BundleError({
          file: lora.file,
          problem: "was changed while it was in use",
          hint: "Start again.",
        });
      }
      return yield* use(handle);
    }));
