/** The JSON Schema, by a validator that editors use: it takes what sau takes, and points at what sau refuses. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { Ajv2020 } from "ajv/dist/2020.js";
import { Effect } from "effect";
import { parse } from "yaml";
import { pipelineSchema } from "../../src/pipeline/json_schema.ts";
import { loadText } from "../../src/pipeline/load.ts";
import { builtinSteps } from "../../src/steps/registry.ts";

const ajv = new Ajv2020({ strict: false, allErrors: true });
const validate = ajv.compile(pipelineSchema(builtinSteps));
const read = (path: string): unknown => parse(readFileSync(new URL(`../../${path}`, import.meta.url), "utf8"));
const errors = (value: unknown): string[] =>
  validate(value) ? [] : (validate.errors ?? []).map(({ instancePath, message }) => `${instancePath} ${message}`);

const pipeline = (steps: unknown, more: Record<string, unknown> = {}) => ({ sau: 1, name: "t", ...more, steps });
const encode = { model: "m", trigger: "t", prompts: "p.txt" };

describe("the JSON Schema", () => {
  it("takes every pipeline of this project", () => {
    for (
      const path of ["pipelines/sau.yaml", "examples/custom-step/pipeline.yaml", "examples/custom-pipeline/audit.yaml"]
    ) {
      assert.deepEqual(errors(read(path)), [], path);
    }
  });

  it("takes every form of the language", () => {
    const text = { use: "encode", with: { ...encode, count: "${{ matrix.n }}" }, matrix: { n: [2, 4] } };
    const all = pipeline({
      text,
      part: { use: "./other.yaml", with: { text: "${{ steps.text.text }}" }, if: "${{ params.on }}" },
      own: { use: "../steps/a.ts#a", with: { any: 1 }, foreach: "${{ params.list }}" },
      pairs: { use: "denoise", with: { text: "${{ params.text }}", seed: "${{ item }}" }, if: false },
    }, { params: { on: { type: "boolean", default: true, description: "d" }, list: [1], effect: { type: 3, at: 1 } } });
    assert.deepEqual(errors(all), []);
  });

  it("points at what is wrong", () => {
    const wrong: ReadonlyArray<readonly [unknown, RegExp]> = [
      [pipeline({ a: { use: "encod", with: encode } }), /\/steps\/a\/use/],
      [pipeline({ a: { use: "encode", with: { ...encode, countt: 1 } } }), /\/steps\/a\/with.*additional/],
      [pipeline({ a: { use: "encode", with: { ...encode, count: [] } } }), /\/steps\/a\/with\/count/],
      [pipeline({ a: { use: "encode" } }), /\/steps\/a must have required property 'with'/],
      [pipeline({ a: { use: "denoise", with: { text: "text" } } }), /\/steps\/a\/with\/text/],
      [pipeline({ a: { use: "encode", with: encode, matrix: { n: 3 } } }), /\/steps\/a\/matrix\/n/],
      [pipeline({ a: { use: "encode", with: encode, foreach: [] } }), /\/steps\/a\/foreach/],
      [pipeline({}), /\/steps/],
      [{ ...pipeline({ a: { use: "encode", with: encode } }), stpes: 1 }, /additional/],
    ];
    for (const [value, at] of wrong) assert.match(errors(value).join("\n"), at);
  });

  it("explains every setting, and gives examples", () => {
    const text = JSON.stringify(pipelineSchema(builtinSteps));
    assert.ok((text.match(/"examples"/g) ?? []).length >= 5);
    for (const step of builtinSteps) assert.ok(text.includes(JSON.stringify(step.description)), step.name);
  });
});

describe("docs/pipelines.md", () => {
  it("holds a pipeline that the schema takes and sau links", async () => {
    const text = readFileSync(new URL("../../docs/pipelines.md", import.meta.url), "utf8");
    const [, yaml] = /```yaml\n([^]*?)```/.exec(text) ?? [];
    assert.deepEqual(errors(parse(yaml)), []);
    const folder = new URL("../../docs", import.meta.url).pathname;
    const { steps } = await Effect.runPromise(loadText(yaml, { steps: builtinSteps, file: "docs.yaml", folder }));
    assert.deepEqual(steps.map(({ id }) => id), ["text", "pairs", "where", "mask-4", "mask-12"]);
  });
});
