/** Networks of any sizes: their tensors under the original code's names lead back to the same network. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { wholeNetwork } from "../../src/diffusion/whole_network.ts";
import type { PartName } from "../../src/diffusion/part.ts";
import { layoutOf } from "../../src/diffusion/single_file/layouts.ts";
import { type Rule, viewsOf } from "../../src/diffusion/single_file/names.ts";
import { describeFile } from "../../src/diffusion/single_file/recognise.ts";
import { shapesOf } from "../../src/diffusion/single_file/shapes.ts";
import { openClipConfig, openClipRules } from "../../src/diffusion/single_file/text.ts";
import { LayoutError, unetConfig, unetLayout, unetRules } from "../../src/diffusion/single_file/unet.ts";
import { vaeConfig, vaeLayout, vaeRules } from "../../src/diffusion/single_file/vae.ts";
import { Graph } from "../../src/graph/mod.ts";
import type { Entry, Header } from "../../src/tensor/safetensors.ts";
import { goldenNames, originalName, partsOf } from "../support/single_file.ts";

/** Computing takes longer on a busy machine than Bun gives a test by itself. */
const patient = { timeout: 120_000 };

/** Dims of every tensor of a network, by name. */
const tensorsOf = (part: PartName, config: unknown): Map<string, readonly number[]> => {
  const g = new Graph();
  wholeNetwork[part](g, config);
  return new Map(g.weightsUsed().map(({ key, dims }) => [key.replace(/^text_model\./, ""), dims]));
};

const headerOf = (tensors: Iterable<readonly [string, readonly number[]]>): Header => {
  let at = 8;
  const entries = [...tensors].map(([key, dims]): [string, Entry] => [
    key,
    { dtype: "F32", dims, begin: at, end: at += 4 * dims.reduce((n, d) => n * d, 1) },
  ]);
  return { file: "x", metadata: {}, bytes: 8, entries: new Map(entries) };
};

const found = (header: Header, rules: readonly Rule[]) =>
  new Map(viewsOf(header, "p.", rules).map(({ name, entry }) => [name.replace(/^text_model\./, ""), entry.dims]));
const sorted = (map: ReadonlyMap<string, readonly number[]>) =>
  [...map].map(([key, dims]) => `${key} [${dims}]`).sort();

/** Channels of 1 to 4 levels. */
const levels = fc.array(fc.constantFrom(32, 64, 96), { minLength: 1, maxLength: 4 });

describe("single file: laws", patient, () => {
  it("a U-Net's layout and config are read off its tensors, whichever levels attend to the text", patient, () => {
    const layouts = levels.chain((channels) =>
      fc.record({
        channels: fc.constant(channels),
        layers: fc.integer({ min: 1, max: 3 }),
        transformers: fc.array(fc.constantFrom(0, 1), { minLength: channels.length, maxLength: channels.length })
          .filter((t) => t.includes(1)),
      })
    );
    fc.assert(
      fc.property(layouts, fc.boolean(), (layout, linear) => {
        const described = {
          _class_name: "UNet2DConditionModel",
          block_out_channels: layout.channels,
          layers_per_block: layout.layers,
          down_block_types: layout.transformers.map((d) => d > 0 ? "CrossAttnDownBlock2D" : "DownBlock2D"),
          up_block_types: layout.transformers.toReversed().map((d) => d > 0 ? "CrossAttnUpBlock2D" : "UpBlock2D"),
          attention_head_dim: 8,
          cross_attention_dim: 24,
          sample_size: 8,
          use_linear_projection: linear,
        };
        const network = tensorsOf("unet", described);
        const header = headerOf([...network].map(([key, dims]) => [originalName("p.", unetRules(layout), key), dims]));
        assert.equal(header.entries.size, network.size);
        const file = shapesOf(header, "p.");
        assert.deepEqual(unetLayout(file), { ...layout });
        assert.deepEqual(sorted(found(header, unetRules(layout))), sorted(network));
        // Heads of width 64 are no whole number for every width; all else of the config builds the same network.
        const config = { ...unetConfig(file, layout, 8), attention_head_dim: 8 };
        assert.deepEqual(sorted(tensorsOf("unet", config)), sorted(network));
      }),
      { numRuns: 30 },
    );
  });

  it("an autoencoder's as well, with and without attention and outer convolutions", patient, () => {
    const any = fc.record({ channels: levels, layers: fc.integer({ min: 1, max: 3 }) });
    fc.assert(
      fc.property(any, fc.boolean(), fc.boolean(), (layout, attends, outer) => {
        const described = {
          block_out_channels: layout.channels,
          layers_per_block: layout.layers,
          down_block_types: layout.channels.map(() => "DownEncoderBlock2D"),
          up_block_types: layout.channels.map(() => "UpDecoderBlock2D"),
          mid_block_add_attention: attends,
          use_quant_conv: outer,
          use_post_quant_conv: outer,
        };
        const network = tensorsOf("vae", described);
        const rules = vaeRules(layout);
        const header = headerOf(
          [...network].map(([key, dims]) => [
            originalName("p.", rules, key),
            /attentions.*(to_|out).*weight/.test(key) ? [...dims, 1, 1] : dims,
          ]),
        );
        const file = shapesOf(header, "p.");
        assert.deepEqual(vaeLayout(file), { ...layout });
        assert.deepEqual(sorted(found(header, rules)), sorted(network));
        assert.deepEqual(sorted(tensorsOf("vae", vaeConfig(file, layout, 64))), sorted(network));
      }),
      { numRuns: 30 },
    );
  });

  it("whatever a file names and whatever shapes it claims, it is described or refused, and soon", patient, () => {
    const names = (["sd-1.5", "sd-2.1", "sdxl-1.0"] as const).flatMap((kind) =>
      partsOf(kind).flatMap((part) => Object.keys(goldenNames(kind, part, []).names))
    );
    const key = fc.oneof(
      { weight: 8, arbitrary: fc.constantFrom(...names) },
      fc.tuple(fc.constantFrom("model.diffusion_model.", "first_stage_model.", ""), fc.string()).map((s) => s.join("")),
    );
    const tensor = fc.tuple(key, fc.array(fc.integer({ min: 0, max: 9 }), { maxLength: 4 }));
    // Enough to be taken for a checkpoint.
    const whole = names.map((name) => [name, [4, 4, 3, 3]] as const);
    fc.assert(
      fc.property(fc.boolean(), fc.array(tensor, { maxLength: 60 }), (start, others) => {
        const header = headerOf(new Map<string, readonly number[]>([...start ? whole : [], ...others]));
        assert.ok(describeFile(header).what.length < 500);
        try {
          const parts = layoutOf(header)?.parts("epsilon");
          for (const { prefix, rules } of Object.values(parts ?? {})) viewsOf(header, prefix, rules);
        } catch (e) {
          assert.ok(e instanceof LayoutError, String(e));
        }
      }),
      { numRuns: 100 },
    );
  });

  it("OpenCLIP's text encoder of any depth, its queries, keys and values in one tensor", patient, () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 5 }), fc.constantFrom(64, 128), (layers, width) => {
        const described = {
          hidden_size: width,
          intermediate_size: 2 * width,
          num_hidden_layers: layers,
          num_attention_heads: width / 64,
          vocab_size: 50,
          max_position_embeddings: 7,
        };
        const network = tensorsOf("text_encoder", described);
        const tensors = new Map<string, readonly number[]>();
        for (const [key, dims] of network) {
          const name = originalName("p.", openClipRules(layers), `text_model.${key}`);
          tensors.set(name, name.includes("in_proj_") ? [3 * dims[0], ...dims.slice(1)] : dims);
        }
        assert.equal(tensors.size, network.size - 4 * layers);
        const header = headerOf(tensors);
        assert.deepEqual(sorted(found(header, openClipRules(layers))), sorted(network));
        const config = openClipConfig(shapesOf(header, "p."), 0);
        assert.deepEqual(sorted(tensorsOf("text_encoder", config)), sorted(network));
      }),
      { numRuns: 10 },
    );
  });
});
