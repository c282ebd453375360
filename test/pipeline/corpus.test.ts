/**
 * Malformed pipeline files: each is refused with the codes and at the places that test/corpus/expected.json holds; every
 * code has its page in docs/errors, whose example gives it; and no text or value, however bent, crashes the decoder or
 * gets past it.
 */
import assert from "node:assert/strict";
import { Effect, Exit, Result } from "effect";
import fc from "fast-check";
import { readdir, readFile } from "node:fs/promises";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { stringify } from "yaml";
import { readMatrix } from "../../src/bench/matrix.ts";
import { loadFile, loadText } from "../../src/pipeline/load.ts";
import { select } from "../../src/pipeline/select.ts";
import { parseSource } from "../../src/pipeline/source.ts";
import { CODES } from "../../src/steps/codes.ts";
import { type Problem, SpecError } from "../../src/steps/errors.ts";
import { builtinSteps } from "../../src/steps/registry.ts";
import { scale } from "./steps.ts";

const root = new URL("../../", import.meta.url);
const corpus = new URL("test/corpus/pipelines/", root);
const pages = new URL("docs/errors/", root);

const load = (text: string, overrides: readonly string[] = [], file = "p.yaml") =>
  Effect.runPromiseExit(Effect.result(
    loadText(text, { steps: builtinSteps, overrides, file, folder: fileURLToPath(corpus) }),
  ));

/** The mistakes of a text; none where it loads. A crash is rethrown. */
const mistakes = async (text: string, overrides: readonly string[] = []): Promise<readonly Problem[]> => {
  const exit = await load(text, overrides);
  if (Exit.isFailure(exit)) throw new Error(`the decoder crashed: ${exit.cause}`);
  if (Result.isSuccess(exit.value)) return [];
  assert.ok(exit.value.failure instanceof SpecError && exit.value.failure.problems.length > 0);
  return exit.value.failure.problems;
};

/** Every mistake is of a known kind, inside of the text, and says what was expected or what to do. */
const assertSound = (problems: readonly Problem[], text: string) => {
  const lines = text.split("\n");
  for (const p of problems) {
    assert.ok(p.code in CODES, p.code);
    for (const help of ["expected", "hint"] as const) {
      assert.ok((p[help] ?? "") !== "", `no ${help} with: ${p.message}`);
    }
    assert.ok(p.message.length < 400, `too long: ${p.message}`);
    if (p.file !== "p.yaml") continue;
    assert.ok(p.line >= 1 && p.line <= lines.length + 1, `line ${p.line} of ${lines.length}: ${p.message}`);
    assert.ok(p.column >= 1 && p.column <= (lines[p.line - 1] ?? "").length + 1, `column ${p.column}: ${p.message}`);
  }
};

describe("a malformed pipeline file", () => {
  it("is refused with what is wrong and where: a hundred of them", async () => {
    const expected: Record<string, string[]> = JSON.parse(
      await readFile(new URL("test/corpus/expected.json", root), "utf8"),
    );
    const files = (await readdir(corpus)).sort();
    assert.ok(files.length >= 100);
    assert.deepEqual(files, Object.keys(expected));
    for (const file of files) {
      const text = await readFile(new URL(file, corpus), "utf8");
      const found = await mistakes(text);
      assertSound(found, text);
      assert.deepEqual(found.map((p) => `${p.code} ${p.line}:${p.column}`), expected[file], file);
    }
  });
});

describe("a code", () => {
  /** Codes that no text of a pipeline file alone leads to: how each comes about. */
  const elsewhere: Partial<Record<string, () => Promise<readonly Problem[]>>> = {
    // No two of the built-in steps could take from one another.
    "circle": async () => {
      const use = (from: string) => `{ use: scale, with: { field: "\${{ steps.${from}.field }}" } }`;
      const text = `sau: 1\nname: x\nsteps: { a: ${use("b")}, b: ${use("a")} }\n`;
      return await failure(loadText(text, { steps: [scale], file: "p.yaml", folder: "/" }));
    },
    "override": () => mistakes("sau: 1\nname: x\nsteps: { mask: { use: mask } }\n", ["=3"]),
    "file-size": () => mistakes(`# ${"x".repeat(300_000)}\nsau: 1\n`),
    "nested-circle": () => failure(loadFile(fileURLToPath(new URL("test/corpus/itself.yaml", root)), { steps: [] })),
    "code-unusable": () =>
      failure(
        loadFile(fileURLToPath(new URL("test/corpus/no-module.yaml", root)), { steps: [], allowCode: true }),
      ),
    "bench-size": () => failure(readMatrix(fileURLToPath(new URL("test/corpus/bench-size.yaml", root)))),
  };
  const failure = async (effect: Effect.Effect<unknown, SpecError>) =>
    (await Effect.runPromise(Effect.flip(effect))).problems;

  it("has its page, whose first example gives it and whose second does not", async () => {
    assert.deepEqual(
      (await readdir(pages)).sort(),
      [...Object.keys(CODES).map((code) => `${code}.md`), "README.md"].sort(),
    );
    const index = await readFile(new URL("README.md", pages), "utf8");
    for (const [code, title] of Object.entries(CODES)) {
      assert.ok(index.includes(`[\`${code}\`](${code}.md)`), `docs/errors/README.md lacks ${code}`);
      const page = await readFile(new URL(`${code}.md`, pages), "utf8");
      assert.ok(page.startsWith(`# ${code}: ${title}\n`), `the title of ${code}.md`);
      const special = elsewhere[code];
      if (special !== undefined) {
        assert.ok((await special()).some((p) => p.code === code), code);
        continue;
      }
      const [wrong, right] = [...page.matchAll(/```(?:yaml|json)\n([^]*?)```/g)].map(([, text]) => text);
      assert.ok((await mistakes(wrong)).some((p) => p.code === code), `the first example of ${code}.md`);
      assert.deepEqual(await mistakes(right), [], `the second example of ${code}.md`);
    }
  });

  it("comes with a selection of steps that are not there, too", async () => {
    const text = "sau: 1\nname: x\nsteps:\n  text: { use: encode, with: { model: m, trigger: t, prompts: p } }\n";
    const exit = await load(text);
    assert.ok(Exit.isSuccess(exit) && Result.isSuccess(exit.value));
    const [problem] = await failure(select(exit.value.success, { only: ["txet"] }));
    assert.deepEqual([problem.code, problem.hint], ["unknown-id", 'did you mean "text"?']);
  });
});

describe("a pipeline file bent at random", () => {
  const sound = readFile(new URL("pipelines/sau.yaml", root), "utf8");

  it("never crashes the decoder, and every mistake has its place and its help", async () => {
    const text = await sound;
    const piece = fc.oneof(
      fc.constantFrom(
        "{",
        "}",
        "[",
        "]",
        ":",
        "- ",
        "&a ",
        "*a",
        "!!x ",
        "${{ ",
        " }}",
        "\n",
        "\t",
        '"',
        "'",
        "#",
        "|",
        "\0",
      ),
      fc.string({ unit: "binary", maxLength: 4 }),
    );
    const cut = fc.record({ at: fc.nat(text.length), drop: fc.nat(30), put: piece });
    await fc.assert(
      fc.asyncProperty(fc.array(cut, { minLength: 1, maxLength: 4 }), async (cuts) => {
        const bent = cuts.reduce((t, { at, drop, put }) => t.slice(0, at) + put + t.slice(at + drop), text);
        assertSound(await mistakes(bent), bent);
      }),
      { numRuns: 400 },
    );
  });

  it("of any values whatever is refused or read, never a crash", async () => {
    const value = fc.jsonValue({ maxDepth: 3 });
    const use = fc.record({
      use: fc.oneof(fc.constantFrom(...builtinSteps.map((s) => s.name), "./x.yaml", "./x.ts#y"), value),
      with: fc.oneof(fc.dictionary(fc.constantFrom("text", "model", "field", "threshold", "__proto__"), value), value),
      if: value,
      matrix: value,
      foreach: value,
    }, { requiredKeys: ["use"] });
    const spec = fc.record({
      sau: fc.constant(1),
      name: fc.oneof(fc.string(), value),
      params: fc.oneof(fc.dictionary(fc.string(), value), value),
      steps: fc.oneof(fc.dictionary(fc.string(), use), value),
      outputs: fc.oneof(fc.dictionary(fc.string(), fc.oneof(fc.constant("${{ steps.a.b }}"), value)), value),
    }, { requiredKeys: ["sau", "steps"] });
    await fc.assert(
      fc.asyncProperty(spec, async (given) => {
        const text = JSON.stringify(given);
        assertSound(await mistakes(text), text);
      }),
      { numRuns: 400 },
    );
  });

  it("is never read as if an unknown key, a missing one or a foreign value were not there", async () => {
    const source = parseSource("p.yaml", await sound);
    assert.ok("locate" in source);
    const spec = structuredClone(source.value) as { steps: Record<string, { with: Record<string, unknown> }> };
    const ids = Object.keys(spec.steps);
    const change = fc.oneof(
      fc.record({
        how: fc.constant("foreign"),
        id: fc.constantFrom(...ids, ""),
        key: fc.stringMatching(/^zz[a-z]{1,6}$/),
      }),
      fc.record({ how: fc.constant("no use"), id: fc.constantFrom(...ids), key: fc.constant("") }),
      fc.record({ how: fc.constant("object"), id: fc.constantFrom(...ids), key: fc.nat().map(String) }),
    );
    await fc.assert(
      fc.asyncProperty(change, async ({ how, id, key }) => {
        const bent = structuredClone(spec);
        const step = bent.steps[id];
        if (how === "no use") Reflect.deleteProperty(step, "use");
        else if (id === "") Reflect.set(bent, key, 1);
        else if (how === "foreign") step.with[key] = 1;
        else {
          // No input and no setting takes a mapping with such a key.
          const names = Object.keys(step.with);
          step.with[names[Number(key) % names.length]] = { zz: [{}] };
        }
        assert.ok((await mistakes(stringify(bent))).length > 0);
      }),
      { numRuns: 150 },
    );
  });
});
