/** LoRAs merged into a model when it is opened: W' = W + weight · scale · up · down, in float32, as changes over its folder. */
import { Effect } from "effect";
import { basename } from "node:path";
import { matmul } from "../tensor/linalg.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { type Bundle, bundleParts, withChanges } from "./bundle.ts";
import { BundleError } from "./errors.ts";
import { type LoraFile, type LoraPair, openLora, readLoraTensor, withLora } from "./lora_file.ts";
import { readWeights } from "./weights.ts";

/** A LoRA that a model is to be opened with. */
export interface LoraUse {
  readonly file: string;
  /** Its strength, 1 as it was trained. */
  readonly weight: number;
}

/** LoRAs that are merged into a model. */
export interface MergedLoras {
  readonly uses: ReadonlyArray<LoraUse & { readonly lora: LoraFile }>;
  /** The weights after merging, before any cure: a change that is this very tensor was not touched since. */
  readonly values: Bundle["changed"];
}

/** up · down of a pair, times its scale: the change of its layer at weight 1, as many numbers as the layer has. */
export const pairDelta = (
  { rank, scale, layer }: Pick<LoraPair, "rank" | "scale" | "layer">,
  down: Tensor,
  up: Tensor,
  mid?: Tensor,
): Float64Array => {
  const out = layer.dims[0], inner = layer.dims.slice(1).reduce((n, d) => n * d, 1);
  const whole = mid === undefined ? down : { data: contract(mid, down, rank, layer.dims) };
  return matmul(up.data, whole.data, out, rank, inner).map((x) => x * scale);
};

/** A convolution in three factors: down and mid as one, Σⱼ mid[i, j, kh, kw] · down[j, in] as [r, in, kh, kw]. */
const contract = (mid: Tensor, down: Tensor, rank: number, [, inner, kh, kw]: readonly number[]): Float64Array => {
  const cells = kh * kw;
  const out = new Float64Array(rank * inner * cells);
  for (let i = 0; i < rank; i++) {
    for (let j = 0; j < rank; j++) {
      for (let n = 0; n < inner; n++) {
        const factor = down.data[j * inner + n];
        for (let k = 0; k < cells; k++) {
          out[(i * inner + n) * cells + k] += factor * mid.data[(i * rank + j) * cells + k];
        }
      }
    }
  }
  return out;
};

/** The model with one more LoRA over what it is. One layer's change is in memory at a time, beside the merged weights. */
const merge = Effect.fnUntraced(function* (bundle: Bundle, lora: LoraFile, weight: number) {
  let merged = bundle;
  for (const part of bundleParts) {
    const pairs = lora.pairs.filter(({ layer }) => layer.part === part);
    if (pairs.length === 0) continue;
    const read = yield* readWeights(bundle, part, pairs.map(({ layer }) => `${layer.name}.weight`));
    // What an earlier LoRA made is taken as it was computed, not as the file's element type would round it.
    const old = read.map((weight, i) => bundle.changed.get(part)?.get(pairs[i].layer.key) ?? weight);
    const values = yield* withLora(lora, (handle) =>
      Effect.forEach(pairs, (pair, i) =>
        Effect.gen(function* () {
          const factor = (key: string) => readLoraTensor(handle, lora.header, key);
          const mid = pair.mid === undefined ? undefined : yield* factor(pair.mid);
          const delta = pairDelta(pair, yield* factor(pair.down), yield* factor(pair.up), mid);
          const value: Tensor = { dims: old[i].dims, data: old[i].data.map((w, at) => w + weight * delta[at]) };
          if (value.data.every(Number.isFinite)) return [pair.layer.key, value] as const;
          return yield* new BundleError({
            file: lora.file,
            key: pair.stem,
            problem: `makes ${pair.layer.name} infinite`,
            expected: "factors whose product is a weight",
          });
        })));
    merged = withChanges(merged, part, new Map(values));
  }
  return merged;
});

const describe = ({ pairs }: LoraFile): string => {
  const parts = bundleParts.flatMap((part) => {
    const n = pairs.filter(({ layer }) => layer.part === part).length;
    return n === 0 ? [] : [`${n} layers of ${part}`];
  });
  const ranks = pairs.map(({ rank }) => rank);
  const [low, high] = [Math.min(...ranks), Math.max(...ranks)];
  return `${parts.join(" and ")}, rank ${low === high ? low : `${low} to ${high}`}`;
};

/** A model with LoRAs merged in, the first one first. Its folder, and the LoRA files, are only read. */
export const withLoras = Effect.fn("withLoras")(function* (
  bundle: Bundle,
  wanted: readonly LoraUse[],
): Effect.fn.Return<Bundle, BundleError> {
  if (wanted.length === 0) return bundle;
  let merged = bundle;
  const uses: MergedLoras["uses"][number][] = [];
  for (const { file, weight } of wanted) {
    if (!Number.isFinite(weight) || weight === 0 || Math.abs(weight) > 100) {
      return yield* new BundleError({
        file,
        problem: `is to be merged with the weight ${weight}`,
        expected: "a number other than 0, of at most 100; 1 is the LoRA as it was trained",
      });
    }
    const lora = yield* openLora(bundle, file);
    merged = yield* merge(merged, lora, weight);
    uses.push({ file, weight, lora });
  }
  return {
    ...merged,
    loras: { uses, values: merged.changed },
    hashes: new Map([
      ...bundle.hashes,
      ...uses.map(({ file, lora }, i): [string, string] => [`lora/${i + 1}/${basename(file)}`, lora.sha256]),
    ]),
    notes: [
      ...bundle.notes,
      ...uses.map(({ file, weight, lora }) =>
        `the LoRA ${basename(file)} is merged at weight ${weight} (${describe(lora)})`
      ),
    ],
  };
});
