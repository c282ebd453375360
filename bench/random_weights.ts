/** Networks of real size without the models: a file of random half-precision weights in the shapes that a config.json describes. */
import { mkdirSync, openSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { wholeNetwork } from "../src/diffusion/whole_network.ts";
import type { PartName } from "../src/diffusion/part.ts";
import { Graph } from "../src/graph/mod.ts";
import { normal } from "../src/tensor/random.ts";
import { size } from "../src/tensor/tensor.ts";

/** A safetensors file of random halves, written tensor by tensor: the whole would not fit where this may run. */
export const writeRandom = (file: string, part: PartName, config: unknown): void => {
  const g = new Graph();
  wholeNetwork[part](g, config);
  let at = 0;
  const weights = g.weightsUsed().map(({ key, dims }) => ({ key, dims, begin: at, end: at += 2 * size(dims) }));
  const header = Object.fromEntries(
    weights.map(({ key, dims, begin, end }) => [key, { dtype: "F16", shape: dims, data_offsets: [begin, end] }]),
  );
  const text = JSON.stringify(header);
  const head = new TextEncoder().encode(text.padEnd(Math.ceil(text.length / 8) * 8));
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(head.length), true);
  mkdirSync(dirname(file), { recursive: true });
  const handle = openSync(file, "w");
  for (const bytes of [length, head]) writeSync(handle, bytes);
  // Numbers from one pool, from another place for each tensor: their sizes matter here, not their values.
  const pool = normal(part, [1 << 20]).data;
  let from = 0;
  for (const { key, dims } of weights) {
    const norm = /norm/.test(key) && dims.length === 1 && key.endsWith("weight");
    const scale = key.endsWith("bias") ? 0 : 1 / Math.sqrt(size(dims.slice(1)));
    const values = new Float16Array(size(dims)).map((_, i) => norm ? 1 : scale * pool[(from + i) % pool.length]);
    from += 7919;
    writeSync(handle, new Uint8Array(values.buffer));
  }
};
