/** Every file in pipelines/ is one that runs: it decodes, and all of its names, kinds and settings fit. */
import assert from "node:assert/strict";
import { Effect } from "effect";
import { readdirSync } from "node:fs";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { cellsOf, readMatrix } from "../../src/bench/matrix.ts";
import { loadFile } from "../../src/pipeline/load.ts";
import { builtinSteps } from "../../src/steps/registry.ts";

const folder = fileURLToPath(new URL("../../pipelines/", import.meta.url));
const BENCH = "bench.yaml";

describe("pipelines/", () => {
  for (const name of readdirSync(folder).filter((n) => n !== BENCH)) {
    it(name, () => Effect.runPromise(Effect.asVoid(loadFile(folder + name, { steps: builtinSteps }))));
  }

  it(`${BENCH}: so does each of its cells`, () =>
    Effect.runPromise(Effect.gen(function* () {
      const cells = cellsOf(yield* readMatrix(folder + BENCH), folder + BENCH);
      assert.ok(cells.length >= 20);
      for (const { pipeline, overrides } of cells) yield* loadFile(pipeline, { steps: builtinSteps, overrides });
    })));
});
