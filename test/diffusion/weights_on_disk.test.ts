/** Engines that read weights from disk by themselves: the same answers as from memory, changed weights included. */
import assert from "node:assert/strict";
import { renameSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Effect, Result } from "effect";
import { partWeights, withChanges } from "../../src/diffusion/bundle.ts";
import { openBundle } from "../../src/diffusion/bundle_open.ts";
import { openTextEncoder } from "../../src/diffusion/text.ts";
import { readWeights } from "../../src/diffusion/weights.ts";
import { native } from "../../src/runtime/native.ts";
import { Runtime } from "../../src/runtime/mod.ts";
import { tinyModel } from "../../src/testing/tiny_model.ts";

const found = await Effect.runPromise(Effect.scoped(Effect.result(native().find({ software: false }))));
const skip = Result.isFailure(found) ? found.failure.reason : false;
const KEY = "encoder.layers.0.mlp.fc1.weight";

/** A tiny model whose weights file is a link, as in a download cache, with one weight changed. */
const changedModel = Effect.gen(function* () {
  const folder = yield* tinyModel();
  const file = join(folder, "text_encoder", "model.safetensors");
  renameSync(file, join(folder, "text_encoder", "0123abcd"));
  symlinkSync("0123abcd", file);
  const bundle = yield* openBundle(folder);
  const [old] = yield* readWeights(bundle, "text_encoder", [KEY]);
  const values = new Map([[KEY, { dims: old.dims, data: old.data.map((x) => 2 * x) }]]);
  return { bundle, changed: withChanges(bundle, "text_encoder", values) };
});

describe("weights on disk", () => {
  it("are not read: what is in memory is the changed weight alone", async () => {
    const weights = await Effect.runPromise(Effect.scoped(Effect.gen(function* () {
      return yield* partWeights((yield* changedModel).changed, "text_encoder", { files: true });
    })));
    assert.equal(weights.external.length, 0);
    const place = weights.locate(KEY);
    assert.equal(place.bytes?.length, place.length);
    const other = weights.locate("final_layer_norm.weight");
    assert.deepEqual([other.path, other.bytes], ["0123abcd", undefined]);
  });

  it("give the answers of weights in memory, to native code", { skip, timeout: 120_000 }, async () => {
    const answers = await Promise.all((["native", "reference"] as const).map((device) =>
      Effect.runPromise(
        Effect.gen(function* () {
          const { bundle, changed } = yield* changedModel;
          const texts = ["a dog", "a red cat"].map((text) => bundle.tokenizer.encode(text).ids);
          const of = Effect.fnUntraced(function* (model: typeof bundle) {
            return (yield* (yield* openTextEncoder(model))(texts)).data;
          });
          return [yield* of(bundle), yield* of(changed)];
        }).pipe(Effect.scoped, Effect.provide(Runtime.layer(device))),
      )
    ));
    const [ours, theirs] = answers;
    const apart = (a: Float32Array, b: Float32Array) => a.reduce((most, x, i) => Math.max(most, Math.abs(x - b[i])), 0);
    assert.ok(apart(ours[0], theirs[0]) < 1e-4 && apart(ours[1], theirs[1]) < 1e-4);
    assert.ok(apart(ours[0], ours[1]) > 1e-2, "the change is seen");
  });
});
