import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { resolve } from "node:path";
import { Effect, Result } from "effect";
import fc from "fast-check";
import { loadSpec, loadText } from "../../src/pipeline/load.ts";
import { MAX_BYTES } from "../../src/pipeline/source.ts";
import { type Problem, SpecError } from "../../src/steps/errors.ts";
import { steps } from "./steps.ts";

const load = (text: string, overrides: readonly string[] = []) =>
  Effect.runPromise(
    Effect.result(loadText(text, { steps, overrides, file: "p.yaml", folder: "/folder" })),
  );

const problems = async (text: string, overrides: readonly string[] = []): Promise<readonly Problem[]> => {
  const result = await load(text, overrides);
  assert.ok(Result.isFailure(result), "this pipeline should not load");
  assert.ok(result.failure instanceof SpecError);
  return result.failure.problems;
};

const pipeline = async (text: string, overrides: readonly string[] = []) => {
  const result = await load(text, overrides);
  if (Result.isFailure(result)) throw result.failure;
  return result.success;
};

/** A pipeline whose steps are these lines (the first of them is line 5). */
const withSteps = (...lines: string[]) =>
  ["sau: 1", "name: test", "params: { file: n.txt, factor: 3, word: plain, many: [1] }", "steps:", ...lines].join("\n");

const good = withSteps(
  `  last: { use: judge, with: { sum: "\${{ steps.twice.sum }}" } }`,
  `  twice: { use: scale, with: { field: "\${{ steps.in.field }}", by: "\${{ params.factor }}" } }`,
  `  in: { use: load, with: { file: "\${{ params.file }}" } }`,
);

describe("a pipeline file", () => {
  it("runs its steps after what they need, whatever order they are written in", async () => {
    const { steps, outputs, params } = await pipeline(good);
    assert.deepEqual(steps.map(({ id }) => id), ["in", "twice", "last"]);
    assert.deepEqual(Object.keys(outputs), ["verdict", "model"]);
    assert.deepEqual(params, { file: "n.txt", factor: 3, word: "plain", many: [1] });
  });

  it("keeps the type of a whole reference, fills in defaults and resolves paths against the file's folder", async () => {
    const { steps: [first, twice] } = await pipeline(good);
    assert.deepEqual(first.encoded, { file: "/folder/n.txt", log: "/dev/null" });
    assert.deepEqual(twice.encoded, {
      by: 3,
      mode: "plain",
      steps: 1,
      wait: 0,
      note: "",
      log: "/dev/null",
      limits: {},
    });
  });

  it("puts parameters inside texts", async () => {
    const text = withSteps(
      `  in: { use: load, with: { file: "\${{ params.word }}/\${{params.factor}}.txt" } }`,
    );
    assert.deepEqual((await pipeline(text)).steps[0].settings, { file: "/folder/plain/3.txt", log: "/dev/null" });
  });

  it("is the same as JSON, and as a spec built in a script", async () => {
    const yaml = await pipeline(good);
    const spec = {
      sau: 1,
      name: "test",
      params: yaml.params,
      steps: {
        in: { use: "load", with: { file: "${{ params.file }}" } },
        twice: { use: "scale", with: { field: "${{ steps.in.field }}", by: "${{ params.factor }}" } },
        last: { use: "judge", with: { sum: "${{ steps.twice.sum }}" } },
      },
    };
    const json = await pipeline(JSON.stringify(spec, null, "\t"));
    const script = await Effect.runPromise(loadSpec(spec, { steps, folder: "/folder" }));
    const essence = (p: typeof yaml) => p.steps.map(({ id, encoded, inputs }) => [id, encoded, Object.keys(inputs)]);
    assert.deepEqual(essence(json), essence(yaml));
    assert.deepEqual(essence(script), essence(yaml));
  });
});

interface Case {
  readonly what: string;
  readonly text: string;
  readonly set?: readonly string[];
  /** `line:column message`, as patterns. */
  readonly expect: ReadonlyArray<{ at: string; message: RegExp; expected?: RegExp; hint?: RegExp }>;
}

const cases: Case[] = [
  {
    what: "an unknown step",
    text: withSteps(`  a: { use: scael }`),
    expect: [{
      at: "5:13",
      message: /there is no step "scael"/,
      hint: /"scale"/,
      expected: /load, scale, judge or fail/,
    }],
  },
  {
    what: "a misspelt setting (and not, besides, that it is missing)",
    text: withSteps(`  a: { use: load, with: { flie: x } }`),
    expect: [{ at: "5:27", message: /no input or setting "flie"/, hint: /"file"/ }],
  },
  {
    what: "a misspelt key inside a setting",
    text: withSteps(
      `  i: { use: load, with: { file: x } }`,
      `  a: { use: scale, with: { field: "\${{ steps.i.field }}", limits: { hihg: 1 } } }`,
    ),
    expect: [{ at: "6:69", message: /unknown key "hihg" in steps.a.with.limits/, hint: /"high"/ }],
  },
  {
    what: "a misspelt key of the pipeline, and still what follows",
    text: `sau: 1\nname: t\nparms: {}\nsteps:\n  a: { use: nothing }`,
    expect: [
      { at: "3:1", message: /unknown key "parms"/, hint: /"params"/ },
      { at: "5:13", message: /no step "nothing"/ },
    ],
  },
  {
    what: "a setting of the wrong type, a wrong word, a number out of range",
    text: withSteps(
      `  i: { use: load, with: { file: 3 } }`,
      `  a: { use: scale, with: { field: "\${{ steps.i.field }}", by: much, mode: plane, steps: 0 } }`,
    ),
    expect: [
      { at: "5:33", message: /steps.i.with.file is 3/, expected: /a path/ },
      { at: "6:63", message: /by is "much"/, expected: /a number/ },
      { at: "6:75", message: /mode is "plane"/, expected: /"plain" or "absolute"/, hint: /"plain"/ },
      { at: "6:89", message: /steps is 0/, expected: /between 1 and 1000/ },
    ],
  },
  {
    what: "a parameter of the wrong type where it is used, and where it comes from",
    text: withSteps(
      `  i: { use: load, with: { file: x } }`,
      `  a: { use: scale, with: { field: "\${{ steps.i.field }}", by: "\${{ params.word }}" } }`,
    ),
    expect: [{ at: "6:63", message: /by is "plain"/, expected: /a number/, hint: /comes from \$\{\{ params.word/ }],
  },
  {
    what: "unknown parameter, step and output",
    text: withSteps(
      `  i: { use: load, with: { file: "\${{ params.fiel }}" } }`,
      `  a: { use: scale, with: { field: "\${{ steps.ii.field }}" } }`,
      `  b: { use: scale, with: { field: "\${{ steps.i.filed }}" } }`,
    ),
    expect: [
      { at: "5:33", message: /no parameter "fiel"/, hint: /"file"/ },
      { at: "6:35", message: /no step "ii" here/, hint: /"i"/ },
      { at: "7:35", message: /step "i" \(load\) has no output "filed"/, hint: /"field"/ },
    ],
  },
  {
    what: "a reference to another kind of value, with the references that would do",
    text: withSteps(
      `  i: { use: load, with: { file: x } }`,
      `  a: { use: scale, with: { field: "\${{ steps.i.field }}" } }`,
      `  j: { use: judge, with: { sum: "\${{ steps.i.field }}" } }`,
    ),
    expect: [{ at: "7:33", message: /sum needs a number, but .* is a field/, expected: /\$\{\{ steps.a.sum \}\}/ }],
  },
  {
    what: "a missing input, with what to write",
    text: withSteps(`  i: { use: load, with: { file: x } }`, `  a: { use: scale }`),
    expect: [{ at: "6:3", message: /lacks its input "field"/, hint: /field: "\$\{\{ steps.i.field \}\}"/ }],
  },
  {
    what: "a missing setting",
    text: withSteps(`  i: { use: load }`),
    expect: [{ at: "5:6", message: /lacks "file"/, expected: /a path/ }],
  },
  {
    what: "a value for an input and an output for a setting",
    text: withSteps(
      `  i: { use: load, with: { file: x } }`,
      `  a: { use: scale, with: { field: 3, by: "\${{ steps.i.field }}", note: "<\${{ steps.i.field }}>" } }`,
    ),
    expect: [
      { at: "6:35", message: /it is an input: it takes another step's output/ },
      { at: "6:42", message: /is a setting and takes a value/ },
      { at: "6:72", message: /puts a step's output inside a text/ },
    ],
  },
  {
    what: "what is no reference, and a list inside a text",
    text: withSteps(
      `  i: { use: load, with: { file: "\${{ file }}" } }`,
      `  j: { use: load, with: { file: "x \${{ params.many }}" } }`,
      `  k: { use: load, with: { file: "\${{ params.file" } }`,
    ),
    expect: [
      { at: "5:33", message: /which is no reference/, expected: /params.NAME/ },
      { at: "6:33", message: /parameter "many" is \[1\]/ },
      { at: "7:33", message: /which is no reference/ },
    ],
  },
  {
    what: "circles, at the reference that closes each",
    text: withSteps(
      `  a: { use: scale, with: { field: "\${{ steps.b.field }}" } }`,
      `  b: { use: scale, with: { field: "\${{ steps.a.field }}" } }`,
      `  c: { use: scale, with: { field: "\${{ steps.c.field }}" } }`,
    ),
    expect: [
      { at: "6:35", message: /a → b → a/ },
      { at: "7:35", message: /c → c/ },
    ],
  },
  {
    what: "duplicate keys",
    text: withSteps(`  i: { use: load, with: { file: x } }`, `  i: { use: load, with: { file: y } }`),
    expect: [{ at: "6:3", message: /this key stands twice/ }],
  },
  {
    what: "bad YAML",
    text: `sau: 1\nname: [x\nsteps: {}\n`,
    expect: [{ at: "3:1", message: /not valid YAML/ }],
  },
  { what: "an empty file", text: "# nothing\n", expect: [{ at: "1:1", message: /empty/ }] },
  { what: "a list", text: "- sau: 1\n", expect: [{ at: "1:1", message: /.*/, expected: /a mapping of/ }] },
  {
    what: "another version of the format, and nothing else",
    text: `sau: 2\nnaem: x\n`,
    expect: [{ at: "1:6", message: /version 2/, expected: /sau: 1/, hint: /newer/ }],
  },
  {
    what: "a file that lacks everything",
    text: `params: {}\n`,
    expect: [
      { at: "1:1", message: /lacks "sau"/ },
      { at: "1:1", message: /lacks "name"/ },
      { at: "1:1", message: /lacks "steps"/ },
    ],
  },
  { what: "no steps", text: `sau: 1\nname: x\nsteps: {}`, expect: [{ at: "3:8", message: /no steps/ }] },
  {
    what: "names that nothing could refer to",
    text: `sau: 1\nname: x\nparams: { "a b": 1 }\nsteps:\n  1st: { use: load, with: { file: x } }`,
    expect: [{ at: "3:11", message: /"a b" cannot be the name/ }, { at: "5:3", message: /"1st" cannot be the name/ }],
  },
  {
    what: "a step in a user's own file",
    text: withSteps(`  a: { use: ./mine.ts#blur }`),
    expect: [{ at: "5:13", message: /a step in a file of your own/, hint: /must not run code unasked/ }],
  },
  {
    what: "outputs that lead nowhere",
    text: `${good}\noutputs:\n  a: "\${{ steps.last.verdit }}"\n  b: text\n  c: "\${{ params.file }}"\n`,
    expect: [
      { at: "9:6", message: /no output "verdit"/, hint: /"verdict"/ },
      { at: "10:6", message: /output "b" is "text"/ },
      { at: "11:6", message: /output "c"/ },
    ],
  },
  {
    what: "an alias bomb",
    text:
      `a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c]`,
    expect: [{ at: "1:1", message: /aliases .* expand too far/ }],
  },
  {
    what: "too deep a file",
    text: `a: ${"[".repeat(5000)}${"]".repeat(5000)}`,
    expect: [{ at: "1:1", message: /too deeply/ }],
  },
  { what: "too large a file", text: "#".repeat(MAX_BYTES + 1), expect: [{ at: "1:1", message: /262145 bytes/ }] },
  {
    what: "every wrong --set",
    text: good,
    set: ["fiel=x", "twice.byy=1", "nowhere.x=1", "in=3", "twice.by=wide", "word"],
    expect: [
      { at: "0:0", message: /no parameter "fiel"/, hint: /"file"/ },
      { at: "0:0", message: /no input or setting "byy"/, hint: /"by"/ },
      { at: "0:0", message: /no step "nowhere"/ },
      { at: "0:0", message: /no parameter "in"/, hint: /"in" is a step/ },
      { at: "0:0", message: /by is "wide"/ },
      { at: "0:0", message: /sets nothing/ },
    ],
  },
];

describe("every mistake is named at its place, all at once", () => {
  for (const { what, text, set, expect } of cases) {
    it(what, async () => {
      const found = await problems(text, set);
      const all = found.map((p) => JSON.stringify(p)).join("\n");
      assert.equal(found.length, expect.length, all);
      for (const { at, message, expected, hint } of expect) {
        const match = found.find((p) => `${p.line}:${p.column}` === at && message.test(p.message));
        assert.ok(match, `${at} ${message} is not among\n${all}`);
        if (expected) assert.match(match.expected ?? "", expected);
        if (hint) assert.match(match.hint ?? "", hint);
        assert.equal(match.file, at === "0:0" ? match.file : "p.yaml");
      }
    });
  }
});

describe("--set", () => {
  const settings = async (...set: string[]) =>
    Object.fromEntries((await pipeline(good, set)).steps.map(({ id, settings }) => [id, settings]));

  it("changes parameters and settings, with the type that the place takes", async () => {
    const all = await settings("factor=5", "twice.note=12", "twice.limits.high=7", "twice.mode=absolute");
    assert.deepEqual(all.twice, {
      by: 5,
      note: "12",
      mode: "absolute",
      limits: { high: 7 },
      steps: 1,
      wait: 0,
      log: "/dev/null",
    });
  });

  it("takes the whole path as references write it, even where a parameter is called steps", async () => {
    const text = good.replace("params: {", "params: { steps: 3,");
    assert.notEqual(text, good);
    const loaded = await pipeline(text, ["steps.twice.note=12", "params.factor=5"]);
    const twice = Object(loaded.steps.find(({ id }) => id === "twice")!.settings);
    assert.equal(Reflect.get(twice, "note"), "12");
    assert.equal(Reflect.get(twice, "by"), 5);
  });

  it("means paths from the current folder, where the file means its own", async () => {
    assert.deepEqual((await settings("file=sub/x.txt")).in, { file: resolve("sub/x.txt"), log: "/dev/null" });
    assert.deepEqual((await settings("in.file=sub/x.txt")).in, { file: resolve("sub/x.txt"), log: "/dev/null" });
  });

  it("keeps a text as typed, spaces and all, and reads quotes as YAML does", async () => {
    const text = async (value: string) => {
      const { steps: [, twice] } = await pipeline(good, [`twice.note=${value}`]);
      return Reflect.get(Object(twice.settings), "note");
    };
    assert.equal(await text("\u200b "), "\u200b ");
    assert.equal(await text(String.raw`"\u200b "`), "\u200b ");
    assert.equal(await text("null"), "null");
    assert.equal(await text("a: b: c"), "a: b: c");
    assert.equal(await text("x=y"), "x=y");
    assert.equal(await text(""), "");
  });
});

describe("the decoder", () => {
  it("never crashes: any text loads or is refused with positions inside it", async () => {
    const word = fc.constantFrom(
      "sau: 1",
      "name: x",
      "steps:",
      "  a: { use: load }",
      "- ",
      "{",
      "}",
      "&a",
      "*a",
      "|",
      "\t",
      "? ",
      "!!x",
      "${{ params.x }}",
      "\u0000",
    );
    const text = fc.oneof(fc.string(), fc.array(word).map((words) => words.join("\n")), fc.json());
    await fc.assert(
      fc.asyncProperty(text, async (text) => {
        const result = await load(text);
        if (Result.isSuccess(result)) return;
        const lines = text.split(/\r\n|\r|\n/).length;
        assert.ok(result.failure.problems.length > 0);
        for (const p of result.failure.problems) {
          assert.ok(p.line >= 1 && p.line <= lines && p.column >= 1, JSON.stringify(p));
        }
      }),
      { numRuns: 300 },
    );
  });
});
