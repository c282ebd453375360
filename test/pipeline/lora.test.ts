/** LoRAs as settings: what the command line says, where paths start, and that their content is part of a step's key. */
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { Effect } from "effect";
import { loraOverrides } from "../../src/cli/lora.ts";
import { loadFile } from "../../src/pipeline/load.ts";
import { recipesOf } from "../../src/pipeline/recipe.ts";
import { loraUses, opensOneLora } from "../../src/steps/open_model.ts";
import { builtinSteps } from "../../src/steps/registry.ts";
import { withFolder } from "./helpers.ts";

const patient = { timeout: 120_000 };
const load = (name: string, ...overrides: string[]) =>
  Effect.runPromise(
    loadFile(fileURLToPath(new URL(`../../pipelines/${name}.yaml`, import.meta.url)), {
      steps: builtinSteps,
      overrides,
    }),
  );
const uses = (settings: unknown) => {
  assert.ok(typeof settings === "object" && settings !== null && "lora" in settings);
  return loraUses(settings.lora as Parameters<typeof loraUses>[0]);
};

describe("LoRAs as settings", patient, () => {
  it("--lora FILE[:WEIGHT], several times", () => {
    const here = (name: string) => resolve(name);
    assert.deepEqual(loraOverrides([]), []);
    assert.deepEqual(loraOverrides(["a.safetensors"]), [`lora=["${here("a.safetensors")}"]`]);
    const [text] = loraOverrides(["a.safetensors:-0.5", "x:y.safetensors", "b:.25", "c:1e3"]);
    assert.deepEqual(JSON.parse(text.slice("lora=".length)), [
      { file: here("a.safetensors"), weight: -0.5 },
      here("x:y.safetensors"),
      { file: here("b"), weight: 0.25 },
      here("c:1e3"),
    ]);
  });

  it("a path alone, a list, a list with weights; paths of --set start from the current folder", patient, async () => {
    for (
      const [text, wanted] of [
        ["a.safetensors", [["a.safetensors", 1]]],
        ["[a.safetensors, sub/b.safetensors]", [["a.safetensors", 1], ["sub/b.safetensors", 1]]],
        ["{file: a.safetensors, weight: 0.5}", [["a.safetensors", 0.5]]],
        ["[a.safetensors, {file: b.safetensors, weight: -1}]", [["a.safetensors", 1], ["b.safetensors", -1]]],
      ] as const
    ) {
      const { steps: [scan] } = await load("scan", `lora=${text}`);
      assert.deepEqual(
        uses(scan.settings).map(({ file, weight }) => [file, weight]),
        wanted.map(([f, w]) => [resolve(f), w]),
      );
      assert.equal(opensOneLora(scan.settings), wanted.length === 1);
    }
    const { steps: [none] } = await load("sau");
    assert.deepEqual([uses(none.settings), opensOneLora(none.settings)], [[], false]);
  });

  it("what a LoRA holds is part of the key of the step that opens it", patient, () =>
    withFolder(async (folder) => {
      const lora = join(folder, "a.safetensors");
      const key = async (weight: number) => {
        const pipeline = await load("scan", `lora=[{file: ${lora}, weight: ${weight}}]`, "model=nowhere", "unet=null");
        const found = (await Effect.runPromise(recipesOf(pipeline, "wasm"))).get("scan")!;
        assert.ok(lora in found.recipe.files);
        return found.key;
      };
      await writeFile(lora, "one");
      const first = await key(1);
      assert.equal(await key(1), first);
      assert.notEqual(await key(0.5), first);
      await writeFile(lora, "other");
      assert.notEqual(await key(1), first);
    }));
});
