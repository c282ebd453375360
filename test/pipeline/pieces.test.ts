/** A long step that was stopped goes on after the last piece that was kept, and leaves none behind. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Effect, Schema } from "effect";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { openCache } from "../../src/pipeline/cache.ts";
import { noServices } from "../../src/pipeline/environment.ts";
import { loadFile } from "../../src/pipeline/load.ts";
import { run } from "../../src/pipeline/run.ts";
import { piece, TensorsPort } from "../../src/steps/pieces.ts";
import { Step } from "../../src/steps/step.ts";
import { tensor } from "../../src/tensor/tensor.ts";
import { layout, listEntries } from "../../src/pipeline/entries.ts";
import { withFolder } from "./helpers.ts";
import { number } from "./steps.ts";

const made: number[] = [];
let stopAt = 2;
const long = Step.make("long", {
  version: 1,
  description: "Adds up pieces.",
  settings: Schema.Struct({}),
  inputs: {},
  outputs: { sum: number },
  run: Effect.fnUntraced(function* () {
    let sum = 0;
    for (let i = 0; i < 4; i++) {
      const { value } = yield* piece(
        `piece ${i}`,
        TensorsPort,
        Effect.suspend(() => {
          if (i === stopAt) return Effect.fail(new Error("stopped"));
          made.push(i);
          return Effect.succeed({ value: tensor(Float32Array.of(i + 1), [1]) });
        }),
      );
      sum += value.data[0];
    }
    return { sum };
  }),
});

describe("pieces of a step", () => {
  it("are there for the next try alone, and not for a run that is to do everything again", () =>
    withFolder(async (folder) => {
      const file = join(folder, "p.yaml"), cache = openCache(join(folder, "cache"));
      await writeFile(file, "sau: 1\nname: Long\nsteps: { long: { use: long } }\n");
      const attempt = (again: ReadonlySet<string> = new Set()) =>
        Effect.runPromise(Effect.result(Effect.gen(function* () {
          const pipeline = yield* loadFile(file, { steps: [long] });
          return yield* run(pipeline, { environment: noServices("wasm"), cache, again });
        })));
      const entries = () => listEntries(layout(join(folder, "cache")));
      assert.equal((await attempt())._tag, "Failure");
      assert.deepEqual(made.splice(0), [0, 1]);
      assert.deepEqual((await entries()).map(({ use }) => use), ["long, a piece of it", "long, a piece of it"]);
      stopAt = 3;
      assert.equal((await attempt(new Set(["long"])))._tag, "Failure");
      assert.deepEqual(made.splice(0), [0, 1, 2], "a forced run believed a piece");
      stopAt = -1;
      const result = await attempt();
      assert.ok(result._tag === "Success");
      assert.deepEqual(made.splice(0), [2, 3]);
      assert.equal(result.success.steps[0].outputs.sum, 10);
      assert.deepEqual((await entries()).map(({ use }) => use), ["long"]);
    }));
});
