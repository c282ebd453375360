import assert from "node:assert/strict";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { Effect } from "effect";
import { withChanges } from "../../src/diffusion/bundle.ts";
import { openBundle } from "../../src/diffusion/bundle_open.ts";
import { loraOf, saveDelta } from "../../src/diffusion/delta.ts";
import { normal } from "../../src/tensor/random.ts";
import { matmul } from "../../src/tensor/linalg.ts";
import { parseHeader, readTensor } from "../../src/tensor/safetensors.ts";
import { type Tensor, tensor } from "../../src/tensor/tensor.ts";
import { put, tempFolder, tinyBundle, tinyWeights, weightsFile } from "../support/bundles.ts";

const temp = tempFolder();
after(() => rmSync(temp, { recursive: true, force: true }));

const big = { "a.weight": normal(1, [20, 16]), "b.weight": normal(2, [30, 16]) };
/** old + up · down, of rank 2. */
const edited = (old: Tensor, seed: number): Tensor => {
  const [out, width] = old.dims;
  const product = matmul(normal(seed, [out, 2]).data, normal(9, [2, width]).data, out, 2, width);
  return { dims: old.dims, data: old.data.map((x, i) => x + product[i]) };
};
const bundle = Effect.runPromise(Effect.suspend(() =>
  openBundle(tinyBundle(temp, (folder) => {
    put(join(folder, "unet/diffusion_pytorch_model.safetensors"), weightsFile({ ...tinyWeights.unet, ...big }));
  }))
));
const saved = async (changes: ReadonlyMap<string, Tensor>) => {
  const stem = join(temp, crypto.randomUUID());
  await Effect.runPromise(saveDelta(withChanges(await bundle, "unet", changes), stem));
  return (kind: string) => {
    const file = `${stem}.${kind}.safetensors`;
    if (!existsSync(file)) return undefined;
    const bytes = new Uint8Array(readFileSync(file));
    const header = parseHeader(bytes, bytes.length, file);
    const tensors = new Map([...header.entries.keys()].map((key) => [key, readTensor(bytes, header, key)]));
    return { header, tensors };
  };
};

describe("only what changed", () => {
  it("delta holds the new values by part and key, in the input's element type", async () => {
    const read = await saved(new Map([["conv_in.bias", tensor(Float32Array.of(4, 5, 6.0001), [3])]]));
    const { header, tensors } = read("delta")!;
    assert.deepEqual([...tensors.keys()], ["unet.conv_in.bias"]);
    assert.equal(header.entries.get("unet.conv_in.bias")?.dtype, "F16");
    assert.deepEqual([...tensors.get("unet.conv_in.bias")!.data], [4, 5, 6]);
    assert.equal(header.metadata["unet.sha256"], (await bundle).parts.unet.sha256);
    assert.equal(read("lora"), undefined, "a bias is no matrix");
  });

  it("a change of low rank comes as a LoRA, too: old + lora_B · lora_A is the new weight", async () => {
    const values = new Map(Object.entries(big).map(([key, old], i) => [key, edited(old, 20 + i)]));
    const { tensors } = (await saved(values))("lora")!;
    for (const [key, value] of values) {
      const [a, b] = ["A", "B"].map((x) => tensors.get(`unet.${key.replace(".weight", "")}.lora_${x}.weight`)!);
      assert.deepEqual([a.dims, b.dims], [[2, 16], [value.dims[0], 2]]);
      const product = matmul(b.data, a.data, b.dims[0], 2, 16);
      value.data.forEach((x, i) => assert.ok(Math.abs(big[key as keyof typeof big].data[i] + product[i] - x) < 1e-4));
    }
  });

  it("a change of full rank has no LoRA", () => {
    const old = normal(3, [16, 16]);
    assert.equal(loraOf("unet", [{ key: "a.weight", old, value: normal(4, [16, 16]) }]), undefined);
  });

  it("nothing is written where nothing changed", async () => {
    assert.equal((await saved(new Map()))("delta"), undefined);
  });
});
