/**
 * Only what a cure changed, in two files beside the cured folder: the new values, and a LoRA, where it pays or where the
 * model came as one.
 */
import { Effect } from "effect";
import { lowRank } from "../tensor/low_rank.ts";
import { write } from "../tensor/safetensors.ts";
import type { FileDType } from "../tensor/safetensors_header.ts";
import type { Tensor, TensorData } from "../tensor/tensor.ts";
import { type Bundle, partOf, partsOf } from "./bundle.ts";
import { Disk, writing } from "./disk.ts";
import type { BundleError } from "./errors.ts";
import { saveCuredLora } from "./lora_cure.ts";
import { readWeights } from "./weights.ts";

/** A LoRA leaves out less than this of the change, by Frobenius norm. */
const TOLERANCE = 0.02;

/** The element type of a file's tensors, where JavaScript has it; else float32. */
const asStored = ({ dims, data }: Tensor, dtype: FileDType | undefined): Tensor<TensorData> =>
  dtype === "F16" ? { dims, data: new Float16Array(data) } : { dims, data };

/** Changes of one part: key, what the file held and what it is to hold. */
interface Change {
  readonly key: string;
  readonly old: Tensor;
  readonly value: Tensor;
}

/**
 * `lora_A` and `lora_B` of each changed weight, as diffusers and PEFT name them: W' = W + lora_B · lora_A. Weights of the
 * same width share lora_A. Undefined where a changed weight is no matrix, or factors would take no less than the weights.
 */
export const loraOf = (part: string, changes: readonly Change[]): Map<string, Tensor> | undefined => {
  if (!changes.every(({ key, value }) => key.endsWith(".weight") && value.dims.length === 2)) return undefined;
  const out = new Map<string, Tensor>();
  let [factors, whole] = [0, 0];
  for (const group of Map.groupBy(changes, ({ value }) => value.dims[1]).values()) {
    const apart = group.map(({ old, value }) => ({
      dims: value.dims,
      data: value.data.map((x, i) => x - old.data[i]),
    }));
    const { down, up } = lowRank(apart, TOLERANCE);
    if (down.dims[0] === 0) continue;
    for (const [i, { key, value }] of group.entries()) {
      const name = `${part}.${key.slice(0, -".weight".length)}`;
      out.set(`${name}.lora_A.weight`, down);
      out.set(`${name}.lora_B.weight`, up[i]);
      factors += down.data.length + up[i].data.length;
      whole += value.data.length;
    }
  }
  return factors < whole ? out : undefined;
};

/**
 * Writes `STEM.delta.safetensors`, the new values by `part.key` in the input's element types, and, where the change of
 * matrices is of low rank, `STEM.lora.safetensors`. Nothing for a model without changes. For a model that was opened with one
 * LoRA, `STEM.lora.safetensors` is that LoRA, cured.
 * @returns what there is to say about them
 */
export const saveDelta = Effect.fn("saveDelta")(function* (
  bundle: Bundle,
  stem: string,
  loraError?: number,
): Effect.fn.Return<readonly string[], BundleError> {
  const single = bundle.loras?.uses.length === 1;
  const delta = new Map<string, Tensor<TensorData>>();
  const lora = new Map<string, Tensor<TensorData>>();
  let isLora = !single;
  for (const [part, values] of bundle.changed) {
    if (values.size === 0) continue;
    const { header } = yield* partOf(bundle, part);
    const entries = [...values];
    entries.forEach(([key, value]) => delta.set(`${part}.${key}`, asStored(value, header.entries.get(key)?.dtype)));
    if (!isLora) continue;
    const old = yield* readWeights({ parts: bundle.parts, changed: new Map() }, part, entries.map(([key]) => key));
    const factors = loraOf(part, entries.map(([key, value], i) => ({ key, value, old: old[i] })));
    if (factors === undefined) isLora = false;
    else factors.forEach((t, key) => lora.set(key, asStored(t, header.entries.get(entries[0][0])?.dtype)));
  }
  if (delta.size === 0) return [];
  const disk = yield* Disk;
  const hashes = Object.fromEntries(
    partsOf(bundle).flatMap(([name, part]) => bundle.changed.has(name) ? [[`${name}.sha256`, part.sha256]] : []),
  );
  const save = (name: string, tensors: ReadonlyMap<string, Tensor<TensorData>>) =>
    writing(name, () => disk.writeFile(name, write(tensors, { format: "pt", made_by: "sau", ...hashes })));
  yield* save(`${stem}.delta.safetensors`, delta);
  if (isLora) yield* save(`${stem}.lora.safetensors`, lora);
  return yield* saveCuredLora(bundle, stem, loraError);
});
