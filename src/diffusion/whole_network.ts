/** The weights of every network that is read, by their names and shapes; from a config.json alone. */
import { Effect } from "effect";
import { join } from "node:path";
import { Graph } from "../graph/mod.ts";
import { autoencoderKl, latentFactor, parseAutoencoderKlConfig } from "../models/autoencoder_kl.ts";
import { clipImageFeatures, clipTextFeatures, parseClipConfig } from "../models/clip.ts";
import { clipText, clipTextProjected, parseClipTextConfig, parseProjectedTextConfig } from "../models/clip_text.ts";
import { parseUnetConfig, SIZE_NUMBERS, unetCondition } from "../models/unet_2d_condition.ts";
import { BundleError } from "./errors.ts";
import type { Part, PartName } from "./part.ts";

/** Every weight that a part's whole network has, with its dimensions, by the names that the graphs use. */
export const wholeNetwork: Readonly<Record<PartName, (g: Graph, config: unknown) => void>> = {
  unet: (g, json) => {
    const config = parseUnetConfig(json);
    const side = 2 ** (config.down.length - 1);
    const { noise } = unetCondition(config)(g.weights("unet"), {
      sample: g.input("sample", "float32", [1, config.in_channels, side, side]),
      timestep: g.input("timestep", "float32", [1]),
      context: g.input("context", "float32", [1, 1, config.cross_attention_dim]),
      ...(config.addition === undefined ? {} : {
        added: {
          pooled: g.input("pooled", "float32", [1, config.addition.pooled]),
          sizes: g.input("sizes", "float32", [1, SIZE_NUMBERS]),
        },
      }),
    });
    g.output("noise", noise);
  },
  text_encoder: (g, json) => {
    const { hidden } = clipText(parseClipTextConfig(json))(g.weights("text_encoder"), {
      ids: g.input("ids", "int32", [1, 2]),
    });
    g.output("hidden", hidden);
  },
  text_encoder_2: (g, json) => {
    const { penultimate, pooled } = clipTextProjected(parseProjectedTextConfig(json))(g.weights("text_encoder_2"), {
      ids: g.input("ids", "int32", [1, 2]),
      end: g.input("end", "float32", [1, 2]),
    });
    g.output("penultimate", penultimate);
    g.output("pooled", pooled);
  },
  vae: (g, json) => {
    const config = parseAutoencoderKlConfig(json);
    const side = latentFactor(config);
    const vae = autoencoderKl(config);
    const { mean, logvar } = vae.encode(
      g.weights("vae"),
      g.input("pixels", "float32", [1, config.in_channels, side, side]),
    );
    g.output("mean", mean);
    g.output("logvar", logvar);
    g.output("shown", vae.decode(g.weights("vae"), g.input("latents", "float32", [1, config.latent_channels, 1, 1])));
  },
  clip: (g, json) => {
    const config = parseClipConfig(json);
    const side = config.vision.image_size;
    const ids = g.input("ids", "int32", [1, 2]);
    const end = g.input("end", "float32", [1, 2]);
    g.output("text", clipTextFeatures(config)(g.weights("clip"), { ids, end }));
    g.output(
      "picture",
      clipImageFeatures(config)(g.weights("clip"), { pixels: g.input("pixels", "float32", [1, 3, side, side]) }),
    );
  },
};

/** Dims of every tensor that a part's file holds, by the names that the graphs use. */
export const networkWeights = ({ name, config, folder }: Pick<Part, "name" | "config" | "folder">) =>
  Effect.try({
    try: (): ReadonlyMap<string, readonly number[]> => {
      const g = new Graph();
      wholeNetwork[name](g, config);
      const weights = new Map(g.weightsUsed().map(({ key, dims }) => [key, dims]));
      // The learned temperature of CLIP's contrastive loss: part of every file, part of no feature.
      if (name === "clip") weights.set("logit_scale", []);
      return weights;
    },
    catch: (e) =>
      new BundleError({
        file: join(folder.path, "config.json"),
        problem: `describes a network that cannot be built: ${e instanceof Error ? e.message : String(e)}`,
        hint: "Stable Diffusion 1.x, 2.x and XL as diffusers saves them are supported.",
      }),
  });
