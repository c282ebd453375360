/**
 * Writes small models in both forms, and the same changes to both saved, for check_single_file.py to open in diffusers:
 *
 *     deno run -A test/golden/write_single_file.ts OUT && python test/golden/check_single_file.py OUT
 */
import { Effect } from "effect";
import { join } from "node:path";
import process from "node:process";
import { readWeights, withChanges } from "../../src/diffusion/bundle.ts";
import { openBundle } from "../../src/diffusion/bundle_open.ts";
import { saveBundle } from "../../src/diffusion/save.ts";
import { tensor } from "../../src/tensor/tensor.ts";
import { put } from "../support/bundles.ts";
import { checkpointBytes, type Kind, leftovers, originalTensors, partsOf, smallFolder } from "../support/single_file.ts";

const changes = {
  unet: ["mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight", "up_blocks.1.upsamplers.0.conv.bias"],
  text_encoder_2: ["encoder.layers.1.self_attn.k_proj.weight", "text_projection.weight"],
  text_encoder: ["encoder.layers.1.self_attn.k_proj.weight", "encoder.layers.0.self_attn.v_proj.bias"],
  vae: ["decoder.mid_block.attentions.0.to_q.weight", "decoder.up_blocks.2.resnets.0.conv1.weight"],
} as const;

const [out] = process.argv.slice(2);
for (const kind of ["sd-1.5", "sd-2.1", "sdxl-1.0"] satisfies Kind[]) {
  const folder = await smallFolder(join(out, kind, "folder"), kind);
  const file = put(
    join(out, kind, "model.safetensors"),
    checkpointBytes(new Map([...leftovers(kind), ...originalTensors(folder, kind)])),
  );
  for (const [path, to] of [[folder, "cured-folder"], [file, "cured.safetensors"]]) {
    let bundle = await Effect.runPromise(openBundle(path));
    for (const part of partsOf(kind)) {
      const keys = changes[part].map((key) =>
        bundle.parts[part]?.header.entries.has(key) ? key : `text_model.${key}`
      );
      const old = await Effect.runPromise(readWeights(bundle, part, keys));
      bundle = withChanges(
        bundle,
        part,
        new Map(keys.map((key, i) => [key, tensor(old[i].data.map((x, j) => x + Math.sin(j)), old[i].dims)])),
      );
    }
    await Effect.runPromise(saveBundle(bundle, join(out, kind, to), { force: true }));
  }
}
