/** What training must keep on every device: PyTorch's losses, norms and weights over some steps of a U-Net. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { Effect } from "effect";
import { Graph, mul, reduceMean, reshape, toOnnx, trainingStep } from "../../src/graph/mod.ts";
import { parseUnetConfig, unetCondition } from "../../src/models/unet_2d_condition.ts";
import { type Device, openTrainer } from "../../src/runtime/mod.ts";
import { goldenOf, readJson, relativeError, Stored } from "../support/golden.ts";
import { withRuntime } from "../support/runtime.ts";

/** Four steps of AdamW on the text keys and values of test/golden/tiny/unet-1x, clipped, with running means of the weights. */
export const followsPyTorch = async (device?: Device): Promise<void> => {
  const folder = fileURLToPath(new URL("../golden/tiny/unet-1x", import.meta.url));
  const weights = new Stored(`${folder}/weights.safetensors`);
  const inputs = new Stored(`${folder}/golden.safetensors`);
  const golden = goldenOf("training.safetensors", { weights });
  const chosen = weights.keys.filter((key) => /\.attn2\.to_[kv]\./.test(key));
  const g = new Graph({ weightsAsInputs: (_, key) => chosen.includes(key) });
  const names = ["sample", "timestep", "context"];
  const data = Object.fromEntries(names.map((name) => [name, inputs.floats(name)]));
  const [sample, timestep, context] = names.map((name) => g.input(name, "float32", data[name].dims));
  const { noise } = unetCondition(parseUnetConfig(readJson(`${folder}/config.json`)))(g.weights("unet"), {
    sample,
    timestep,
    context,
  });
  const projected = mul(noise, g.constant(golden.floats("projection")));
  const loss = reshape(reduceMean(mul(projected, projected), [0, 1, 2, 3]), []);
  const state = trainingStep(g, loss, { clipNorm: 0.05, epsilon: 1e-6, weightDecay: 0.05, averageDecay: 0.75 });
  const { model } = toOnnx(g, (part, key) => weights.place(part, key));
  const start = Object.fromEntries(chosen.map((key) => [`unet/${key}`, weights.floats(key)]));
  await withRuntime(
    Effect.gen(function* () {
      const external = [{ path: "unet", data: weights.bytes }];
      const trainer = yield* openTrainer({ name: "train", model, external }, state, start);
      for (const [i, rate] of golden.floats("rates").data.entries()) {
        const result = yield* trainer.step(rate, data);
        assert.equal(result.step, i + 1);
        for (const [have, name] of [[result.loss, "losses"], [result.gradientNorm, "norms"]] as const) {
          const want = golden.floats(name).data[i];
          assert.ok(Math.abs(have - want) <= 1e-4 * want, `${name} at step ${i + 1}: ${have}, PyTorch says ${want}`);
        }
      }
      for (const [role, name] of [["weight", "weight"], ["average", "mean"]] as const) {
        const found = yield* trainer.read(role);
        assert.deepEqual([...found.keys()].sort(), chosen.map((key) => `unet/${key}`).sort());
        for (const key of chosen) {
          const error = relativeError(found.get(`unet/${key}`)!, golden.floats(`${name}.${key}`));
          assert.ok(error <= 1e-3, `${name} ${key}: relative error ${error}`);
        }
      }
    }),
    device,
  );
};
