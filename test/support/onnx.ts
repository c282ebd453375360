/** Exports that test/golden/make_onnx.py made, unpacked, and the weights that they were made of. */
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "fflate";
import { crc32 } from "node:zlib";
import { type Tensor, tensor } from "../../src/tensor/tensor.ts";

const golden = fileURLToPath(new URL("../golden/onnx/", import.meta.url));

/** Writes an export's files below `folder`; gives its path. */
export const unpackExport = (name: "sd" | "sd-dynamo" | "xl", folder: string): string => {
  for (const file of readdirSync(join(golden, name), { recursive: true, encoding: "utf8" })) {
    const from = join(golden, name, file);
    if (!/\.\w+$/.test(file)) continue;
    const to = join(folder, file.replace(/\.gz$/, ""));
    mkdirSync(dirname(to), { recursive: true });
    if (file.endsWith(".gz")) writeFileSync(to, gunzipSync(readFileSync(from)));
    else cpSync(from, to);
  }
  return folder;
};

/** What diffusers and transformers answered with these weights. */
export const exportAnswers = (): Record<"sd.hidden" | "sd.noise" | "sd.picture", Tensor> => {
  const stored = JSON.parse(readFileSync(join(golden, "golden.json"), "utf8"));
  const of = (name: string) => tensor(Float32Array.from(stored[name].data), stored[name].dims);
  return { "sd.hidden": of("sd.hidden"), "sd.noise": of("sd.noise"), "sd.picture": of("sd.picture") };
};

/** A weight by its name in diffusers or transformers; as `known` of make_onnx.py. */
export const knownWeight = (name: string, dims: readonly number[]): Float32Array => {
  const n = dims.reduce((a, b) => a * b, 1);
  const inner = dims.slice(1).reduce((a, b) => a * b, 1);
  if (name.includes("norm2")) return new Float32Array(n).fill(name.endsWith("bias") ? 0 : 1);
  const [start, scale] = [crc32(name), 2 ** halfEven(Math.log2(Math.max(1, inner)) / 2)];
  return Float32Array.from({ length: n }, (_, i) => ((Math.imul(i + start, 2654435761) >>> 25) / 64 - 1) / scale);
};

/** Python's rounding of halves. */
const halfEven = (x: number): number => x % 1 === 0.5 ? 2 * Math.round(x / 2) : Math.round(x);
