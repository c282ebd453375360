/** Latents to pictures and back. */
import { Effect } from "effect";
import { div, Graph, mul, sub } from "../graph/mod.ts";
import { autoencoderKl, latentFactor, parseAutoencoderKlConfig } from "../models/autoencoder_kl.ts";
import { concat0, slice0, type Tensor } from "../tensor/tensor.ts";
import type { Bundle } from "./bundle.ts";
import { float32, inBatches, openSession, rows } from "./networks.ts";
import { batchFor } from "./sampler.ts";
import { crop, joinTiles, type Tile, tilesOf } from "./tiles.ts";

/** Latents that are wider or higher are decoded in tiles of this side, as diffusers does for pictures of 512 pixels. */
const TILE = 64;

/**
 * Opens the VAE's decoder; the result maps latents [n, C, h, w] to pictures [n, 3, H, W] in 0…1. Beyond `tile` cells a side it
 * goes tile by tile (tiles.ts), so that memory does not grow with the picture.
 */
export const openDecoder = Effect.fnUntraced(function* (bundle: Bundle, height: number, width: number, tile = TILE) {
  if (height <= tile && width <= tile) {
    const decode = yield* openWholeDecoder(bundle, height, width);
    return Effect.fnUntraced(function* (all: Tensor) {
      return toUnit(yield* decode(all));
    });
  }
  const factor = latentFactor(parseAutoencoderKlConfig(bundle.parts.vae.config));
  const tiles = tilesOf(height, width, tile);
  const sizes = Map.groupBy(tiles.flat(), (t) => `${t.height} ${t.width}`);
  return Effect.fnUntraced(function* (all: Tensor) {
    const decoded = new Map<Tile, Tensor>();
    for (const group of sizes.values()) {
      // One session at a time: each holds the decoder's weights.
      yield* Effect.scoped(Effect.gen(function* () {
        const decode = yield* openWholeDecoder(bundle, group[0].height, group[0].width);
        for (const t of group) decoded.set(t, yield* decode(crop(all, t)));
      }));
    }
    return toUnit(joinTiles(tiles.map((row) => row.map((t) => decoded.get(t)!)), tile, factor));
  });
});

const toUnit = ({ dims, data }: Tensor): Tensor => ({
  dims,
  data: data.map((x) => Math.min(1, Math.max(0, x / 2 + 0.5))),
});

/** Latents [n, C, h, w] to pictures [n, 3, H, W] in about −1…1. */
const openWholeDecoder = Effect.fnUntraced(function* (bundle: Bundle, height: number, width: number) {
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
      return slice0(yield* float32(pixels), 0, real);
    });
    return concat0(yield* inBatches(session, all.dims[0], batch, decodeBatch));
  });
});

/** Opens the VAE's encoder; the result maps pictures [n, 3, H, W] in 0…1 to latents [n, C, h, w]: the mean, not a sample. */
export const openEncoder = Effect.fnUntraced(function* (bundle: Bundle, height: number, width: number) {
  const config = parseAutoencoderKlConfig(bundle.parts.vae.config);
  const factor = latentFactor(config);
  const batch = batchFor(height / factor, width / factor);
  const g = new Graph();
  const pixels = g.input("pixels", "float32", [batch, 3, height, width]);
  const { mean } = autoencoderKl(config).encode(g.weights("vae"), pixels);
  const centred = config.shift_factor === 0 ? mean : sub(mean, config.shift_factor);
  g.output("latents", mul(centred, config.scaling_factor));
  const session = yield* openSession("VAE encoder", g, bundle, "vae");

  return Effect.fnUntraced(function* (all: Tensor) {
    const signed: Tensor = { dims: all.dims, data: all.data.map((x) => 2 * x - 1) };
    const encodeBatch = Effect.fnUntraced(function* (begin: number, real: number) {
      const { latents } = yield* session.run({ pixels: rows(signed, begin, batch) });
      return slice0(yield* float32(latents), 0, real);
    });
    return concat0(yield* inBatches(session, all.dims[0], batch, encodeBatch));
  });
});
