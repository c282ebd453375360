/** Latents to pictures. */
import { Effect } from "effect";
import { div, Graph, sub } from "../graph/mod.ts";
import { autoencoderKl, parseAutoencoderKlConfig } from "../models/autoencoder_kl.ts";
import { concat0, slice0, type Tensor } from "../tensor/tensor.ts";
import type { Bundle } from "./bundle.ts";
import { float32, inBatches, openSession, rows } from "./networks.ts";
import { batchFor } from "./sampler.ts";

/** Opens the VAE's decoder; the result maps latents [n, C, h, w] to pictures [n, 3, H, W] in 0…1. */
export const openDecoder = Effect.fnUntraced(function* (bundle: Bundle, height: number, width: number) {
  const config = parseAutoencoderKlConfig(bundle.parts.vae.config);
  const batch = batchFor(height, width);
  const g = new Graph();
  const latents = g.input("latents", "float32", [batch, config.latent_channels, height, width]);
  const scaled = div(latents, config.scaling_factor);
  const z = config.shift_factor === 0 ? scaled : sub(scaled, -config.shift_factor);
  g.output("pixels", autoencoderKl(config).decode(g.weights("vae"), z));
  const session = yield* openSession("VAE decoder", g, bundle, "vae");

  return Effect.fnUntraced(function* (all: Tensor) {
    const decodeBatch = Effect.fnUntraced(function* (begin: number, real: number) {
      const { pixels } = yield* session.run({ latents: rows(all, begin, batch) });
      const picture = yield* float32(pixels);
      const data = picture.data.map((x) => Math.min(1, Math.max(0, x / 2 + 0.5)));
      return slice0({ dims: picture.dims, data }, 0, real);
    });
    return concat0(yield* inBatches(session, all.dims[0], batch, decodeBatch));
  });
});
