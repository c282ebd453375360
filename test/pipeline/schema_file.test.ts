import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { pipelineSchema } from "../../src/pipeline/json_schema.ts";
import { builtinSteps } from "../../src/steps/registry.ts";

describe("sau.schema.json", () => {
  it("is what the steps say today (make it anew: sau schema > sau.schema.json)", () => {
    const file: unknown = JSON.parse(readFileSync(new URL("../../sau.schema.json", import.meta.url), "utf8"));
    assert.deepEqual(file, JSON.parse(JSON.stringify(pipelineSchema(builtinSteps))));
  });
});
