/** Params with types, sweeps, conditions and pipelines within pipelines: what they mean, and what is wrong with them. */
import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import process from "node:process";
import { describe, it } from "node:test";
import { Effect, Result } from "effect";
import fc from "fast-check";
import { noServices } from "../../src/pipeline/environment.ts";
import { loadFile } from "../../src/pipeline/load.ts";
import { run } from "../../src/pipeline/run.ts";
import { SpecError } from "../../src/steps/errors.ts";
import { withFolder } from "./helpers.ts";
import { steps } from "./steps.ts";

const attempt = async (files: Record<string, string>, overrides: readonly string[] = []) => {
  const out: Result.Result<Effect.Success<ReturnType<typeof loadFile<never>>>, unknown>[] = [];
  let folder = "";
  await withFolder(async (at) => {
    folder = at;
    for (const [name, text] of Object.entries({ "n.txt": "1\n2\n3\n", ...files })) {
      await mkdir(dirname(join(at, name)), { recursive: true });
      await writeFile(join(at, name), text);
    }
    out.push(
      await Effect.runPromise(Effect.result(loadFile(join(at, "p.yaml"), { steps: steps as never, overrides }))),
    );
  });
  return { result: out[0], folder };
};

const load = async (files: Record<string, string>, overrides: readonly string[] = []) => {
  const { result, folder } = await attempt(files, overrides);
  if (Result.isFailure(result)) throw result.failure;
  return { ...result.success, folder };
};

const mistakes = async (files: Record<string, string>, overrides: readonly string[] = []): Promise<string> => {
  const { result, folder } = await attempt(files, overrides);
  assert.ok(Result.isFailure(result), "this should not load");
  assert.ok(result.failure instanceof SpecError);
  return result.failure.message.replaceAll(`${folder}/`, "");
};

const head = "sau: 1\nname: t\n";
const settingOf = (pipeline: { steps: ReadonlyArray<{ id: string; encoded: unknown }> }, name: string) =>
  pipeline.steps.map(({ id, encoded }) => [id, (encoded as Record<string, unknown>)[name]]);

describe("typed params", () => {
  const file = (declaration: string, by = "${{ params.x }}") =>
    `${head}params:\n  x: ${declaration}\nsteps:\n  a: { use: load, with: { file: n.txt } }\n` +
    `  b: { use: scale, with: { field: "\${{ steps.a.field }}", by: "${by}" } }\n`;

  it("have a default, and take --set by their type", async () => {
    const text = file(`{ type: number, default: 3, description: "the factor" }`);
    assert.deepEqual(settingOf(await load({ "p.yaml": text }), "by")[1], ["b", 3]);
    assert.deepEqual(settingOf(await load({ "p.yaml": text }, ["x=5"]), "by")[1], ["b", 5]);
    assert.match(
      await mistakes({ "p.yaml": text }, ["x=wide"]),
      /--set x=wide: parameter "x" is "wide" \[parameter-value\]\n +expected: a number/,
    );
  });

  it("must be given where they have no default", async () => {
    const text = file(`{ type: number }`);
    assert.match(await mistakes({ "p.yaml": text }), /p.yaml:4:3: .*no default[^]*--set x=VALUE/);
    assert.equal((await mistakes({ "p.yaml": text })).startsWith("1 mistake"), true);
    assert.deepEqual(settingOf(await load({ "p.yaml": text }, ["x=7"]), "by")[1], ["b", 7]);
  });

  it("say at their place what does not fit", async () => {
    assert.match(
      await mistakes({ "p.yaml": file(`{ type: nubmer, default: 1 }`) }),
      /p.yaml:4:14: .*"nubmer"[^]*mean "number"/,
    );
    assert.match(
      await mistakes({ "p.yaml": file(`{ type: integer, default: 1.5 }`) }),
      /"x" is 1.5 \[parameter-value\]\n +expected: an integer/,
    );
  });

  it("of type path mean the file's folder, from --set the current one", async () => {
    const text = `${head}params: { f: { type: path, default: n.txt } }\nsteps:\n` +
      `  a: { use: load, with: { file: "\${{ params.f }}" } }\n`;
    const { steps: [first], folder } = await load({ "p.yaml": text });
    assert.equal((first.encoded as { file: string }).file, join(folder, "n.txt"));
    const set = await load({ "p.yaml": text }, ["f=m.txt"]);
    assert.equal((set.steps[0].encoded as { file: string }).file, join(process.cwd(), "m.txt"));
  });

  it("of the short form stay what they were, a mapping with a key called type among them", async () => {
    const text = `${head}params: { limits: { low: 1 }, x: { type: 2, low: 3 } }\nsteps:\n` +
      `  a: { use: load, with: { file: n.txt } }\n` +
      `  b: { use: scale, with: { field: "\${{ steps.a.field }}", limits: "\${{ params.limits }}" } }\n`;
    assert.deepEqual(settingOf(await load({ "p.yaml": text }), "limits")[1], ["b", { low: 1 }]);
    assert.deepEqual(settingOf(await load({ "p.yaml": text }, ["limits.low=2"]), "limits")[1], ["b", { low: 2 }]);
    const long = text.replace("limits: { low: 1 }", "limits: { type: object, default: { low: 1 } }");
    assert.deepEqual(settingOf(await load({ "p.yaml": long }, ["limits.low=2"]), "limits")[1], ["b", { low: 2 }]);
  });
});

const sweep = (more = "") =>
  `${head}params: { factors: [2, 3] }
steps:
  in: { use: load, with: { file: n.txt } }
  b: { use: scale, matrix: { by: "\${{ params.factors }}"${more} }, with: { field: "\${{ steps.in.field }}", by: "\${{ matrix.by }}" } }
  v: { use: judge, with: { sum: "\${{ steps.b.sum }}", least: 15 } }
outputs: { verdict: "\${{ steps.v.verdict }}" }
`;

describe("a sweep", () => {
  it("runs a step, and what takes from it, once for each value", async () => {
    const pipeline = await load({ "p.yaml": sweep() });
    assert.deepEqual(pipeline.steps.map(({ id }) => id), ["in", "b-2", "b-3", "v-2", "v-3"]);
    assert.deepEqual(pipeline.steps[3].inputs.sum.step, "b-2");
    assert.deepEqual(Object.keys(pipeline.outputs).slice(-2), ["verdict-2", "verdict-3"]);
    const more = await load({ "p.yaml": sweep() }, ["factors=[1, 2.5, -4]"]);
    assert.deepEqual(more.steps.map(({ id }) => id).slice(1, 4), ["b-1", "b-2_5", "b--4"]);
  });

  it("gives each its own result", () =>
    withFolder(async (folder) => {
      await writeFile(join(folder, "n.txt"), "1\n2\n3\n");
      await writeFile(join(folder, "p.yaml"), sweep());
      const pipeline = await Effect.runPromise(loadFile(join(folder, "p.yaml"), { steps }));
      const { outputs } = await Effect.runPromise(run(pipeline, { environment: noServices() }));
      const passed = Object.fromEntries(
        Object.entries(outputs).map(([name, { value }]) => [name, (value as { passed: boolean }).passed]),
      );
      assert.deepEqual([passed["verdict-2"], passed["verdict-3"]], [false, true]);
    }));

  it("over two lists is every combination, and a step with both inputs of one sweep stays in step", async () => {
    const two = sweep(", wait: [0, 1, 2]");
    assert.equal((await load({ "p.yaml": two })).steps.length, 1 + 6 + 6);
    const joined = `${head}steps:
  in: { use: load, with: { file: n.txt } }
  a: { use: scale, foreach: [2, 3], with: { field: "\${{ steps.in.field }}", by: "\${{ item }}" } }
  b: { use: scale, with: { field: "\${{ steps.a.field }}", offset: "\${{ steps.a.sum }}" } }
  c: { use: scale, foreach: [x, y], with: { field: "\${{ steps.b.field }}", note: "n \${{ item }}" } }
`;
    const { steps: found } = await load({ "p.yaml": joined });
    assert.deepEqual(found.map(({ id }) => id), ["in", "a-2", "a-3", "b-2", "b-3", "c-2-x", "c-2-y", "c-3-x", "c-3-y"]);
    assert.deepEqual([found[3].inputs.field.step, found[3].inputs.offset.step], ["a-2", "a-2"]);
    assert.equal(found[5].inputs.field.step, "b-2");
    assert.equal((found[6].encoded as { note: string }).note, "n y");
  });

  it("has as many runs as its lists have combinations, under names that no two share", () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(fc.oneof(fc.integer(), fc.string(), fc.boolean()), { minLength: 1, maxLength: 4 }), {
          minLength: 1,
          maxLength: 3,
        }),
        async (lists) => {
          const matrix = JSON.stringify(Object.fromEntries(lists.map((list, i) => [
            `m${i}`,
            list.map((v) => typeof v === "string" ? v.replaceAll("$", "S") : v),
          ])));
          const text = `${head}steps:\n  a: { use: load, matrix: ${matrix}, with: { file: n.txt } }\n`;
          const found = (await load({ "p.yaml": text })).steps.map(({ id }) => id);
          assert.equal(found.length, lists.reduce((n, list) => n * list.length, 1));
          assert.equal(new Set(found).size, found.length);
        },
      ),
      { numRuns: 30 },
    ));

  it("says what is wrong with it", async () => {
    assert.match(await mistakes({ "p.yaml": sweep().replace("[2, 3]", "[]") }), /this sweep goes through \[\]/);
    assert.match(
      await mistakes({ "p.yaml": sweep().replace("[2, 3]", "7") }),
      /this sweep goes through 7 \[sweep-values\]\n +expected: a list/,
    );
    assert.match(
      await mistakes({ "p.yaml": sweep().replace("matrix.by }}", "matrix.bi }}") }),
      /no matrix "bi"[^]*mean "by"/,
    );
    assert.match(
      await mistakes({ "p.yaml": sweep().replace("${{ matrix.by }}", "${{ item }}") }),
      /there is no foreach here/,
    );
    const many = sweep().replace("[2, 3]", JSON.stringify(Array.from({ length: 3000 }, (_, i) => i)));
    assert.match(await mistakes({ "p.yaml": many }), /come to 3001 steps and more/);
  });
});

describe("a condition", () => {
  const text = (condition: string, params = "on: false, mode: full") =>
    `${head}params: { ${params} }
steps:
  in: { use: load, with: { file: n.txt } }
  sum: { use: scale, if: ${condition}, with: { field: "\${{ steps.in.field }}" } }
  opt: { use: scale, with: { field: "\${{ steps.in.field }}", offset: "\${{ steps.sum.sum }}" } }
  v: { use: judge, with: { sum: "\${{ steps.sum.sum }}" } }
outputs: { verdict: "\${{ steps.v.verdict }}" }
`;
  const left = async (condition: string, params?: string, set: string[] = []) =>
    Object.keys((await load({ "p.yaml": text(condition, params) }, set)).leftOut ?? {});

  it("leaves out a step and what cannot do without it; an optional input is left out alone", async () => {
    const pipeline = await load({ "p.yaml": text(`"\${{ params.on }}"`) });
    assert.deepEqual(pipeline.steps.map(({ id }) => id), ["in", "opt"]);
    assert.deepEqual(pipeline.leftOut, { sum: "if: ${{ params.on }}", v: "step sum is left out" });
    assert.deepEqual(Object.keys(pipeline.steps[1].inputs), ["field"]);
    assert.deepEqual(Object.keys(pipeline.outputs), []);
    assert.deepEqual(await left(`"\${{ params.on }}"`, undefined, ["on=true"]), []);
  });

  it("an optional input that a parameter leaves empty is left out; any other needs an output", async () => {
    const opt = (input: string) =>
      `${head}params: { none: null, given: 3 }\nsteps:\n  in: { use: load, with: { file: n.txt } }\n  opt: { use: scale, with: ${input} }\n`;
    const field = `field: "\${{ steps.in.field }}"`;
    for (const value of [`"\${{ params.none }}"`, "null"]) {
      const pipeline = await load({ "p.yaml": opt(`{ ${field}, offset: ${value} }`) });
      assert.deepEqual(Object.keys(pipeline.steps[1].inputs), ["field"]);
    }
    assert.match(await mistakes({ "p.yaml": opt(`{ ${field}, offset: "\${{ params.given }}" }`) }), /it is an input/);
    assert.match(await mistakes({ "p.yaml": opt(`{ field: "\${{ params.none }}" }`) }), /it is an input/);
  });

  it("may compare", async () => {
    assert.deepEqual(await left(`"\${{ params.mode }} == full"`), []);
    assert.deepEqual(await left(`"\${{ params.mode }} != full"`), ["sum", "v"]);
    assert.deepEqual(await left(`"\${{ params.mode }} != null"`, "mode: null"), ["sum", "v"]);
    assert.deepEqual(await left(`"\${{ params.mode }} == 3"`, "mode: 3"), []);
    assert.deepEqual(await left("false"), ["sum", "v"]);
  });

  it("says what is wrong with it", async () => {
    assert.match(await mistakes({ "p.yaml": text(`"\${{ params.mode }}"`) }), /this condition is "full"[^]*== "full"/);
    assert.match(await mistakes({ "p.yaml": text(`"\${{ steps.in.field }}"`) }), /known too late/);
    assert.match(await mistakes({ "p.yaml": text(`"\${{ params.mod }} == 1"`) }), /no parameter "mod"/);
    assert.match(await mistakes({ "p.yaml": text("maybe") }), /this condition is "maybe"/);
    const none = `${head}steps:\n  a: { use: load, if: false, with: { file: n.txt } }\n`;
    assert.match(await mistakes({ "p.yaml": none }), /every step of this pipeline is left out/);
  });

  it("still has its step checked for what no value can mend", async () => {
    assert.match(
      await mistakes({ "p.yaml": text("false").replace("sum: { use: scale", "sum: { use: scael") }),
      /scael/,
    );
  });
});

describe("a pipeline in a pipeline", () => {
  const inner = `${head}params: { values: { type: array }, file: { type: path, default: own.txt }, by: 2, from: null }
steps:
  read: { use: load, with: { file: "\${{ params.file }}" } }
  twice: { use: scale, with: { field: "\${{ params.from }}", by: "\${{ params.by }}" } }
outputs: { scaled: "\${{ steps.twice.field }}", sum: "\${{ steps.twice.sum }}" }
`;
  const outer = (settings = `values: [1], from: "\${{ steps.in.field }}", by: 5`) =>
    `${head}steps:
  in: { use: load, with: { file: n.txt } }
  part: { use: ./parts/inner.yaml, with: { ${settings} } }
  v: { use: judge, with: { sum: "\${{ steps.part.sum }}" } }
`;
  const files = (settings?: string) => ({ "p.yaml": outer(settings), "parts/inner.yaml": inner });

  it("stands in the place of the step: params and inputs go in, outputs come out", async () => {
    const pipeline = await load(files());
    assert.deepEqual(pipeline.steps.map(({ id }) => id), ["in", "part-read", "part-twice", "v"]);
    const [, read, twice, v] = pipeline.steps;
    assert.equal(twice.inputs.field.step, "in");
    assert.equal((twice.encoded as { by: number }).by, 5);
    assert.deepEqual(v.inputs.sum, { ...v.inputs.sum, step: "part-twice", output: "sum" });
    // Paths start from the folder of the file that says them.
    assert.equal((read.encoded as { file: string }).file, join(pipeline.folder, "parts", "own.txt"));
    const given = await load(files(`values: [1], from: "\${{ steps.in.field }}", file: n.txt`));
    assert.equal((given.steps[1].encoded as { file: string }).file, join(given.folder, "n.txt"));
    const set = await load(files(), ["part.by=9"]);
    assert.equal((set.steps[2].encoded as { by: number }).by, 9);
  });

  it("may be swept as a whole", async () => {
    const text = outer().replace("with: { values", "matrix: { by: [2, 3] }, with: { values").replace(
      "by: 5",
      `by: "\${{ matrix.by }}"`,
    );
    const pipeline = await load({ "p.yaml": text, "parts/inner.yaml": inner });
    assert.deepEqual(settingOf(pipeline, "by").filter(([id]) => String(id).endsWith("twice")), [
      ["part-2-twice", 2],
      ["part-3-twice", 3],
    ]);
    assert.ok(pipeline.steps.some(({ id }) => id === "v-3"));
  });

  it("says what is wrong, in the file where it is", async () => {
    assert.match(
      await mistakes(files(`values: [1], from: "\${{ steps.in.field }}", bye: 1`)),
      /p.yaml:5:\d+: .*no parameter "bye"[^]*mean "by"/,
    );
    assert.match(
      await mistakes(files(`from: "\${{ steps.in.field }}"`)),
      /parts\/inner.yaml:3:11: parameter "values" has no default[^]*with: { values/,
    );
    assert.match(
      await mistakes({ ...files(), "parts/inner.yaml": inner.replace("use: scale", "use: scael") }),
      /parts\/inner.yaml:6:17: there is no step "scael"/,
    );
    assert.match(await mistakes({ "p.yaml": outer() }), /p.yaml:5:16: no such file or folder: parts\/inner.yaml/);
    assert.match(
      await mistakes({
        ...files(),
        "parts/inner.yaml": `${inner.split("outputs")[0]}  again: { use: ./inner.yaml, with: { values: [] } }\n`,
      }),
      /inner.yaml uses itself/,
    );
    assert.match(await mistakes(files(`values: [1], from: 3`)), /is an input: it takes another step's output/);
    assert.match(
      await mistakes({ "p.yaml": outer().replace("steps.part.sum", "steps.part.some"), "parts/inner.yaml": inner }),
      /has no output "some"[^]*mean "sum"/,
    );
  });
});
