/** Pictures to latents and back, with the scale that the sampler works in, against diffusers' values. */
import assert from "node:assert/strict";
import { Effect } from "effect";
import { join } from "node:path";
import { describe, it } from "node:test";
import { openBundle } from "../../src/diffusion/bundle_open.ts";
import { openDecoder, openEncoder } from "../../src/diffusion/pictures.ts";
import { parseAutoencoderKlConfig } from "../../src/models/autoencoder_kl.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { assertClose, base, goldenOf, missing, Stored } from "../support/golden.ts";
import { withRuntime } from "../support/runtime.ts";

const map = (t: Tensor, f: (x: number) => number): Tensor => ({ dims: t.dims, data: t.data.map(f) });

describe("pictures", { skip: missing }, () => {
  it(
    "encoding gives diffusers' mean times the scaling factor, decoding its pixels",
    { timeout: 120_000 },
    () =>
      withRuntime(Effect.gen(function* () {
        const bundle = yield* openBundle(base);
        const golden = goldenOf("networks/vae.safetensors", {
          vae: new Stored(join(base, "vae", "diffusion_pytorch_model.safetensors")),
        });
        const { scaling_factor } = parseAutoencoderKlConfig(bundle.parts.vae.config);
        const pixels = golden.floats("pixels");
        const encode = yield* openEncoder(bundle, pixels.dims[2], pixels.dims[3]);
        const latents = yield* encode(map(pixels, (x) => x / 2 + 0.5));
        assertClose(latents, map(golden.floats("mean"), (x) => x * scaling_factor), "latents");

        const wanted = golden.floats("decoded");
        const decode = yield* openDecoder(bundle, latents.dims[2], latents.dims[3]);
        const { dims, data } = yield* decode(latents);
        const first = { dims: wanted.dims, data: data.slice(0, wanted.data.length) };
        assertClose(first, map(wanted, (x) => Math.min(1, Math.max(0, x / 2 + 0.5))), `pixels of [${dims.join(", ")}]`);
      })),
  );

  it(
    "a large picture is decoded in tiles, as diffusers' tiled_decode does",
    { timeout: 120_000 },
    () =>
      withRuntime(Effect.gen(function* () {
        const bundle = yield* openBundle(base);
        const golden = goldenOf("networks/tiles.safetensors", {
          vae: new Stored(join(base, "vae", "diffusion_pytorch_model.safetensors")),
        });
        const latents = golden.floats("latents");
        const [, , height, width] = latents.dims;
        const pictures = yield* (yield* openDecoder(bundle, height, width, Number(golden.header.metadata.tile)))(
          latents,
        );
        const wanted = map(golden.floats("pixels"), (x) => Math.min(1, Math.max(0, x / 2 + 0.5)));
        // The file holds halves.
        const apart = pictures.data.reduce((most, x, i) => Math.max(most, Math.abs(x - wanted.data[i])), 0);
        assert.deepEqual(pictures.dims, wanted.dims);
        assert.ok(apart < 1e-3, `${apart} apart`);
      })),
  );
});
