/** The tiny model that test/golden/make_lora.py put LoRAs over: the same networks, their weights told by the same formula. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { wholeNetwork } from "../../src/diffusion/whole_network.ts";
import { Graph } from "../../src/graph/mod.ts";
import { parseHeader, readTensor, write } from "../../src/tensor/safetensors.ts";
import { size, type Tensor } from "../../src/tensor/tensor.ts";
import { randomModelFiles } from "../../src/testing/tiny_model.ts";
import { put } from "./bundles.ts";
import { randomConfigs } from "./random_model.ts";

const golden = (name: string): string => fileURLToPath(new URL(`../golden/${name}`, import.meta.url));

export const loraConfigs: Record<"unet" | "text_encoder", unknown> = JSON.parse(
  readFileSync(golden("lora/config.json"), "utf8"),
);

/** Path of a LoRA that make_lora.py wrote. */
export const goldenLora = (name: string): string => golden(`lora/${name}.safetensors`);

/** The numbers of any weight of it. */
export const formulaWeight = (dims: readonly number[]): Tensor => ({
  dims,
  data: Float32Array.from({ length: size(dims) }, (_, i) => (((i * 7919) % 257) - 128) / 1024),
});

/** Writes the folder; returns its path. */
export const loraModel = (folder: string): string => {
  const tokenizer = ["tokenizer.json", "tokenizer_config.json"].map((name): [string, Uint8Array] => [
    name,
    readFileSync(join(golden("tokenizer"), name)),
  ]);
  const files = randomModelFiles({ ...loraConfigs, vae: randomConfigs.vae }, new Map(tokenizer));
  for (const [path, content] of files) put(join(folder, path), content);
  const weights = { unet: "diffusion_pytorch_model.safetensors", text_encoder: "model.safetensors" };
  for (const part of ["unet", "text_encoder"] as const) {
    const g = new Graph();
    wholeNetwork[part](g, loraConfigs[part]);
    put(
      join(folder, part, weights[part]),
      write(new Map(g.weightsUsed().map(({ key, dims }) => [key, formulaWeight(dims)]))),
    );
  }
  return folder;
};

/** All tensors of a file as float32, and its header. */
export const readFileTensors = (file: string) => {
  const bytes = new Uint8Array(readFileSync(file));
  const header = parseHeader(bytes, bytes.length, file);
  return { header, tensors: new Map([...header.entries.keys()].map((key) => [key, readTensor(bytes, header, key)])) };
};
