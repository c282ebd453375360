/** The forms in which people hold a part's weights, made of a folder with one plain file a part. */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseHeader, readTensor, write } from "../../src/tensor/safetensors.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { put } from "./bundles.ts";

/** Tensors of a file as float32. */
export const tensorsOf = (path: string): Map<string, Tensor> => {
  const bytes = new Uint8Array(readFileSync(path));
  const header = parseHeader(bytes, bytes.length, path);
  return new Map([...header.entries.keys()].map((key) => [key, readTensor(bytes, header, key)]));
};

/** Spreads `STEM.safetensors` over `count` files with an index, round-robin by key; gives the shards' names. */
export const shard = (folder: string, stem: string, count: number): string[] => {
  const path = join(folder, `${stem}.safetensors`);
  const tensors = [...tensorsOf(path)];
  rmSync(path);
  const name = (i: number) =>
    `${stem}-${String(i + 1).padStart(5, "0")}-of-${String(count).padStart(5, "0")}.safetensors`;
  const names = Array.from({ length: count }, (_, i) => name(i));
  const map = Object.fromEntries(tensors.map(([key], i) => [key, names[i % count]]));
  for (const file of names) {
    put(join(folder, file), write(new Map(tensors.filter(([key]) => map[key] === file)), { format: "pt" }));
  }
  const total_size = tensors.reduce((n, [, t]) => n + 4 * t.data.length, 0);
  put(join(folder, `${stem}.safetensors.index.json`), { metadata: { total_size }, weight_map: map });
  return names;
};

/** Rewrites a float32 file of our own making in half precision or bfloat16 (cut off, not rounded). */
export const narrow = (path: string, to: "F16" | "BF16"): void => {
  const tensors = tensorsOf(path);
  const halves = new Map([...tensors].map(([key, { dims, data }]) => [key, { dims, data: new Float16Array(data) }]));
  const bytes = write(halves, { format: "pt" });
  if (to === "BF16") {
    // Both take two bytes an element, so the header needs other names alone, and one byte more for each: written anew.
    const header = parseHeader(bytes, bytes.length, path);
    const json: Record<string, unknown> = { __metadata__: { format: "pt" } };
    for (const [key, { dims, begin, end }] of header.entries) {
      json[key] = { dtype: "BF16", shape: dims, data_offsets: [begin - header.bytes, end - header.bytes] };
    }
    const text = new TextEncoder().encode(JSON.stringify(json));
    const head = 8 + Math.ceil(text.length / 8) * 8;
    const out = new Uint8Array(head + bytes.length - header.bytes).fill(0x20, 8, head);
    new DataView(out.buffer).setBigUint64(0, BigInt(head - 8), true);
    out.set(text, 8);
    for (const [key, { begin }] of header.entries) {
      const bits = new Uint32Array(Float32Array.from(tensors.get(key)?.data ?? []).buffer);
      const view = new Uint16Array(Array.from(bits, (b) => b >>> 16));
      out.set(new Uint8Array(view.buffer), head + begin - header.bytes);
    }
    writeFileSync(path, out);
  } else writeFileSync(path, bytes);
};
