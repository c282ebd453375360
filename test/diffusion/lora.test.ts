import assert from "node:assert/strict";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { Effect } from "effect";
import { openBundle } from "../../src/diffusion/bundle.ts";
import { withLoras } from "../../src/diffusion/lora_merge.ts";
import { goldenLora, loraModel, readFileTensors } from "../support/lora_model.ts";
import { tempFolder } from "../support/bundles.ts";

const temp = tempFolder();
after(() => rmSync(temp, { recursive: true, force: true }));
const model = loraModel(join(temp, "model"));
const opened = Effect.runPromise(openBundle(model));

const CASES = ["kohya", "kohya-ldm", "kohya-no-alpha", "peft", "peft-metadata", "diffusers", "processor"];

describe("LoRAs merged as diffusers merges them", () => {
  for (const name of CASES) {
    it(name, async () => {
      const bundle = await opened;
      const { header, tensors } = readFileTensors(goldenLora(`${name}.fused`));
      const weight = Number(header.metadata.weight);
      const merged = await Effect.runPromise(withLoras(bundle, [{ file: goldenLora(name), weight }]));
      const changed = new Map(
        [...merged.changed.values()].flatMap((values) => [...values]).map(([key, value]) =>
          [key.startsWith("encoder.") ? `text_model.${key}` : key, value] as const
        ),
      );
      assert.deepEqual([...changed.keys()].sort(), [...tensors.keys()].map((key) => `${key}.weight`).sort());
      for (const [key, wanted] of tensors) {
        const got = changed.get(`${key}.weight`)!;
        assert.deepEqual(got.dims, wanted.dims);
        const largest = Math.max(...wanted.data.map(Math.abs));
        wanted.data.forEach((x, i) => {
          const error = Math.abs(got.data[i] - x) / largest;
          assert.ok(error <= 1e-5, `${key}[${i}] is ${got.data[i]}, diffusers has ${x}`);
        });
      }
    });
  }
});
