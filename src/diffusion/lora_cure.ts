/**
 * A cured model handed back as the LoRA that it was opened with: over the same base, at the same weight, the file makes the
 * cured weights. Layers that the cure left alone keep their bytes; those that it changed get factors of what the LoRA and
 * the cure did together, under the same names and in the same element type.
 */
import { Effect } from "effect";
import type { FileHandle } from "node:fs/promises";
import { basename } from "node:path";
import { matmul } from "../tensor/linalg.ts";
import { factorise } from "../tensor/low_rank.ts";
import { type Entry, type FileDType, type Header, type RawTensor, roundTo, writeRaw } from "../tensor/safetensors.ts";
import { size } from "../tensor/tensor.ts";
import type { Bundle } from "./bundle.ts";
import { Disk, writing } from "./disk.ts";
import type { BundleError } from "./errors.ts";
import { readFully } from "./files.ts";
import { type LoraFile, loraLayers, type LoraPair, readLoraTensor, withLora } from "./lora_file.ts";
import type { MergedLoras } from "./lora_merge.ts";
import { ADAPTER_METADATA } from "./lora_metadata.ts";
import { type Layer, newLoraKeys } from "./lora_names.ts";
import { tensors } from "./part.ts";
import { readWeights } from "./weights.ts";

/** Factors leave out no more than this of a layer's change, by Frobenius norm, before they are rounded. */
const ERROR = 0.005;

/** What became of the LoRA. */
export interface CuredLora {
  /** Layers of the file whose factors are new; layers that it did not hold before; layers that are as they were. */
  readonly changed: number;
  readonly added: number;
  readonly kept: number;
  /** Lowest and highest rank of the new factors. */
  readonly ranks: readonly [number, number];
  /** Largest and overall share of a layer's change that the factors, as written, miss. */
  readonly largest: number;
  readonly error: number;
}

interface Factors {
  readonly rank: number;
  readonly down: RawTensor;
  readonly up: RawTensor;
  /** Sums of squares: of what the factors miss, as written, and of the change. */
  readonly missed: number;
  readonly whole: number;
}

/**
 * Factors of a layer's change; undefined where nothing is left of it.
 * @param deep whether they have a convolution's four dimensions
 * @param alpha where the file says one, factors are used times alpha / rank
 */
const factorsOf = (layer: Layer, change: Float32Array, { keys, dtype, deep, alpha, error }: {
  readonly keys: { readonly down: string; readonly up: string };
  readonly dtype: FileDType;
  readonly deep: boolean;
  readonly alpha: number | undefined;
  readonly error: number;
}): Factors | undefined => {
  const [out, ...inner] = layer.dims;
  const width = size(inner);
  const { down, up } = factorise({ dims: [out, width], data: change }, error);
  const rank = down.dims[0];
  if (rank === 0) return undefined;
  const scale = alpha === undefined ? 1 : alpha / rank;
  const kernel = deep ? (inner.length > 1 ? inner : [...inner, 1, 1]) : [width];
  const a = roundTo(dtype, keys.down, { dims: [rank, ...kernel], data: down.data });
  const b = roundTo(dtype, keys.up, {
    dims: deep ? [out, rank, 1, 1] : [out, rank],
    data: up.data.map((x) => x / scale),
  });
  const product = matmul(b.values.data, a.values.data, out, rank, width);
  let missed = 0, whole = 0;
  change.forEach((x, i) => {
    missed += (x - scale * product[i]) ** 2;
    whole += x * x;
  });
  return { rank, down: a, up: b, missed, whole };
};

const entryOf = (header: Header, key: string): Entry => {
  const entry = header.entries.get(key);
  if (entry === undefined) throw new RangeError(`${header.file} holds no tensor ${key}`);
  return entry;
};
const dtypeOf = (header: Header, key: string): FileDType => entryOf(header, key).dtype;

/** What stands most often in a list. */
const commonest = <A>(list: readonly A[]): A =>
  [...Map.groupBy(list, (x) => x).values()].sort((a, b) => b.length - a.length)[0][0];

/** Metadata of the new file: what the old one said, but for what is no longer true. */
const metadataOf = ({ weight, lora }: MergedLoras["uses"][number], cured: CuredLora) => {
  const { metadata } = lora.header;
  const stale = [ADAPTER_METADATA, "sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256"];
  const kept = Object.entries(metadata).filter(([key]) => !stale.includes(key));
  return {
    ...Object.fromEntries(kept),
    ...("ss_network_dim" in metadata ? { ss_network_dim: String(cured.ranks[1]) } : {}),
    format: "pt",
    "sau.cured_from": lora.sha256,
    "sau.weight": String(weight),
    "sau.error": cured.largest.toPrecision(3),
  };
};

/** How layers that the file does not hold are to be written: as most of those that it holds. */
const habits = ({ pairs, header }: LoraFile) => {
  const alphas = pairs.flatMap((pair) =>
    pair.alpha === undefined ? [] : [{ key: pair.alpha, value: pair.scale * pair.rank }]
  );
  const value = alphas.length === 0 ? undefined : commonest(alphas.map((alpha) => alpha.value));
  return {
    dtype: commonest(pairs.map((pair) => dtypeOf(header, pair.down))),
    alpha: alphas.find((alpha) => alpha.value === value),
  };
};

/** What becomes of one weight. */
type Fate =
  | { readonly _tag: "nothing" | "unfit" }
  | { readonly _tag: "kept" | "changed" | "added"; readonly tensors: readonly (readonly [string, RawTensor])[] }
    & Partial<Omit<Factors, "down" | "up">>;

/** Decides what becomes of each weight. `handle` is the LoRA's file, opened. */
const fates = (handle: FileHandle, { lora, weight }: MergedLoras["uses"][number], error: number) => {
  const { header } = lora;
  const habit = habits(lora);
  // diffusers' metadata gives factors that hold for the old ranks; the new file does without it.
  const folded = ADAPTER_METADATA in header.metadata;
  const raw = Effect.fnUntraced(function* (key: string, as = key) {
    const { dtype, dims, begin, end } = entryOf(header, key);
    const bytes = new Uint8Array(end - begin);
    yield* readFully(handle, lora.file, bytes, begin);
    return [as, { dtype, dims, bytes }] as const;
  });
  const kept = Effect.fnUntraced(
    function* ({ down, up, mid, alpha, scale }: LoraPair): Effect.fn.Return<Fate, BundleError> {
      const names = [down, mid, alpha, ...(folded ? [] : [up])].filter((name) => name !== undefined);
      const same = yield* Effect.forEach(names, (name) => raw(name));
      if (!folded) return { _tag: "kept", tensors: same };
      const { dims, data } = yield* readLoraTensor(handle, header, up);
      const scaled = { dims, data: data.map((x) => x * scale) };
      return { _tag: "kept", tensors: [...same, [up, yield* tensors(() => roundTo(dtypeOf(header, up), up, scaled))]] };
    },
  );
  const remade = Effect.fnUntraced(
    function* (layer: Layer, change: Float32Array, pair: LoraPair | undefined): Effect.fn.Return<Fate, BundleError> {
      const names = pair ?? newLoraKeys(layer, lora.samples, lora.finder);
      const alpha = pair === undefined
        ? habit.alpha
        : pair.alpha === undefined
        ? undefined
        : { key: pair.alpha, value: pair.scale * pair.rank };
      const found = yield* tensors(() =>
        factorsOf(layer, change, {
          keys: names,
          dtype: pair === undefined ? habit.dtype : dtypeOf(header, pair.down),
          deep: (pair === undefined ? layer.dims : entryOf(header, pair.down).dims).length === 4,
          alpha: alpha?.value,
          error,
        })
      );
      if (found === undefined) return { _tag: "nothing" };
      const { down, up, ...figures } = found;
      const said = alpha === undefined || names.alpha === undefined ? [] : [yield* raw(alpha.key, names.alpha)];
      return {
        _tag: pair === undefined ? "added" : "changed",
        tensors: [[names.down, down], [names.up, up], ...said],
        ...figures,
      };
    },
  );
  return {
    kept,
    remade: (layer: Layer, change: Float32Array, pair?: LoraPair) => remade(layer, change.map((x) => x / weight), pair),
  };
};

/**
 * The LoRA of a model that was opened with one LoRA and cured.
 * @param error share of a layer's change that its factors may miss
 * @returns the file's bytes and what became of its layers; or the changed weights that no LoRA can hold; or that nothing is
 * left of it; undefined where the cure changed nothing.
 */
export const curedLora = Effect.fn("curedLora")(function* (
  bundle: Bundle,
  use: MergedLoras["uses"][number],
  error: number = ERROR,
) {
  const { lora } = use;
  const id = (part: string, key: string) => `${part} ${key}`;
  const layers = new Map((yield* loraLayers(bundle)).map((layer) => [id(layer.part, layer.key), layer]));
  const pairs = new Map(lora.pairs.map((pair) => [id(pair.layer.part, pair.layer.key), pair]));
  const base = { parts: bundle.parts, changed: new Map() };
  const all = yield* withLora(lora, (handle) =>
    Effect.gen(function* () {
      const { kept, remade } = fates(handle, use, error);
      const found: { readonly name: string; readonly fate: Fate }[] = [];
      for (const [part, values] of bundle.changed) {
        const old = yield* readWeights(base, part, [...values.keys()]);
        for (const [i, [key, value]] of [...values].entries()) {
          const layer = layers.get(id(part, key)), pair = pairs.get(id(part, key));
          const untouched = pair !== undefined && bundle.loras?.values.get(part)?.get(key) === value;
          const change = value.data.map((x, at) => x - old[i].data[at]);
          const fate: Fate = untouched
            ? yield* kept(pair)
            : change.every((x) => x === 0)
            ? { _tag: "nothing" }
            : layer === undefined
            ? { _tag: "unfit" }
            : yield* remade(layer, change, pair);
          found.push({ name: `${part}.${key}`, fate });
        }
      }
      return found;
    }));
  const unfit = all.filter(({ fate }) => fate._tag === "unfit").map(({ name }) => name);
  if (unfit.length > 0) return { _tag: "unfit" as const, unfit };
  const count = (tag: Fate["_tag"]) => all.filter(({ fate }) => fate._tag === tag).length;
  if (count("kept") === all.length) return undefined;
  const made = all.flatMap(({ fate }) => "tensors" in fate ? [fate] : []);
  const ranks = made.flatMap(({ rank }) => rank ?? []);
  const sum = (of: (fate: (typeof made)[number]) => number | undefined) =>
    made.reduce((n, fate) => n + (of(fate) ?? 0), 0);
  const cured: CuredLora = {
    changed: count("changed"),
    added: count("added"),
    kept: count("kept"),
    ranks: ranks.length === 0 ? [0, 0] : [Math.min(...ranks), Math.max(...ranks)],
    largest: Math.max(0, ...made.map(({ missed = 0, whole = 1 }) => Math.sqrt(missed / whole))),
    error: Math.sqrt(sum(({ missed }) => missed) / Math.max(sum(({ whole }) => whole), 1e-300)),
  };
  const written = new Map(made.flatMap((fate) => fate.tensors));
  if (written.size === 0) return { _tag: "gone" as const };
  return { _tag: "lora" as const, cured, bytes: writeRaw(written, metadataOf(use, cured)) };
});

const percent = (x: number): string => `${(100 * x).toPrecision(2)} %`;

/** Writes `STEM.lora.safetensors`, if the model was opened with one LoRA; gives what there is to say about it. */
export const saveCuredLora = Effect.fn("saveCuredLora")(function* (
  bundle: Bundle,
  stem: string,
  error: number = ERROR,
) {
  const [use, ...others] = bundle.loras?.uses ?? [];
  if (use === undefined || others.length > 0) return [];
  const found = yield* curedLora(bundle, use, error);
  const name = `${basename(stem)}.lora.safetensors`;
  if (found === undefined) return [`No ${name} was written: the cure changed no weight.`];
  if (found._tag === "gone") {
    return [
      `No ${name} was written: the cure took back all that ${basename(use.file)} did; the base without it is cured.`,
    ];
  }
  if (found._tag === "unfit") {
    const { unfit } = found;
    return [
      `No ${name} was written: the cure changed ${unfit.length} weights that no LoRA can hold ` +
      `(${unfit.slice(0, 3).join(", ")}${unfit.length > 3 ? ", …" : ""}). The cured folder has them.`,
    ];
  }
  const { cured: { changed, added, kept, ranks: [low, high], largest, error: whole }, bytes } = found;
  const disk = yield* Disk;
  yield* writing(name, () => disk.writeFile(`${stem}.lora.safetensors`, bytes));
  return [
    `${name} takes the place of ${basename(use.file)}, at the same weight (${use.weight}): ${
      changed + added
    } layers have ` +
    `new factors of rank ${low === high ? low : `${low} to ${high}`}${
      added > 0 ? `, ${added} of them are added` : ""
    }, ` +
    `${kept} are as they were. It makes what changed over the base to within ${percent(largest)} in every layer ` +
    `(${percent(whole)} in all).`,
  ];
});
