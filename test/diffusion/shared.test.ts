import { Effect } from "effect";
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, utimesSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { weightsBytes, withChanges } from "../../src/diffusion/bundle.ts";
import { openBundle } from "../../src/diffusion/bundle_open.ts";
import { Shared, SharedFiles } from "../../src/diffusion/shared.ts";
import { readWeights } from "../../src/diffusion/weights.ts";
import { tensor } from "../../src/tensor/tensor.ts";
import { randomModel } from "../support/random_model.ts";

describe("weights that are shared", () => {
  let folder: string;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), "sau-shared-"));
    randomModel(folder);
  });
  after(() => rmSync(folder, { recursive: true }));
  const open = () => Effect.runPromise(openBundle(folder));

  it("are read once, and changes are made to a copy", async () => {
    const shared = new SharedFiles(1e9);
    const read = <A, E>(effect: Effect.Effect<A, E>) =>
      Effect.runPromise(Effect.provideService(effect, Shared, shared));
    const first = await read(weightsBytes(await open(), "unet"));
    assert.equal(await read(weightsBytes(await open(), "unet")), first);
    assert.equal(shared.bytes, first.length);
    const before = first.slice();
    const bias = "conv_in.bias";
    const [old] = await read(readWeights(await open(), "unet", [bias]));
    const changed = withChanges(await open(), "unet", new Map([[bias, tensor(old.data.map(() => 1.5), old.dims)]]));
    assert.notDeepEqual(await read(weightsBytes(changed, "unet")), before);
    assert.deepEqual(await read(weightsBytes(await open(), "unet")), before);
    // Another state of the file is another file.
    utimesSync((await open()).parts.unet.file, 1, 1);
    const again = await read(weightsBytes(await open(), "unet"));
    assert.notEqual(again, first);
    assert.deepEqual(again, before);
  });

  it("stay within their limit, the longest unused going first", () => {
    const shared = new SharedFiles(10);
    shared.put("a", new Uint8Array(4));
    shared.put("b", new Uint8Array(4));
    shared.get("a");
    shared.put("c", new Uint8Array(4));
    shared.put("large", new Uint8Array(11));
    assert.deepEqual(["a", "b", "c", "large"].map((key) => shared.get(key)?.length), [4, undefined, 4, undefined]);
    assert.equal(shared.bytes, 8);
  });
});
