import { describe, it } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { stableJson } from "../../src/pipeline/hash.ts";
import { shellQuote } from "../../src/pipeline/manifest.ts";
import { sortSteps } from "../../src/pipeline/order.ts";
import { setAt } from "../../src/pipeline/overrides.ts";
import { NAME, parseTemplate, showReference } from "../../src/pipeline/reference.ts";
import { valueAt } from "../../src/pipeline/spec.ts";
import { nearest } from "../../src/pipeline/suggest.ts";
import { decodeEscapes } from "../../src/cli/escapes.ts";
import { duration } from "../../src/cli/terminal.ts";

const name = fc.stringMatching(/^[A-Za-z_][A-Za-z0-9_-]{0,8}$/);

describe("stable JSON", () => {
  it("does not depend on the order of keys, and reads back as the same value", () =>
    fc.assert(fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (object) => {
      const turned = Object.fromEntries(Object.entries(object).reverse());
      assert.equal(stableJson(turned), stableJson(object));
      assert.deepEqual(JSON.parse(stableJson(object)), JSON.parse(JSON.stringify(object)));
    })));
});

describe("references", () => {
  it("survive being written and read, alone and inside a text", () =>
    fc.assert(fc.property(name, name, fc.string().filter((s) => !s.includes("$")), (a, b, text) => {
      assert.ok(NAME.test(a));
      const output = { _tag: "output", step: a, output: b } as const;
      assert.deepEqual(parseTemplate(showReference(output)), { _tag: "whole", reference: output });
      const param = { _tag: "param", name: a } as const;
      const mixed = parseTemplate(`${text}>${showReference(param)}<`);
      assert.deepEqual(mixed, { _tag: "mixed", parts: [`${text}>`, param, "<"] });
    })));
});

describe("setting a value at a path", () => {
  it("gives that value there and leaves the rest", () =>
    fc.assert(fc.property(fc.dictionary(name, fc.jsonValue()), fc.array(name, { minLength: 1 }), (object, path) => {
      const changed = setAt(object, path, 42);
      assert.equal(valueAt(changed, path), 42);
      for (const key of Object.keys(object)) {
        if (key !== path[0]) assert.deepEqual(valueAt(changed, [key]), object[key]);
      }
    })));

  it("cannot reach the prototype of anything", () => {
    setAt({}, ["__proto__", "polluted"], true);
    assert.equal(Reflect.get({}, "polluted"), undefined);
  });
});

describe("the order of steps", () => {
  it("puts every step once, after all that it needs, when there is no circle", () =>
    fc.assert(fc.property(fc.array(fc.array(fc.nat()), { maxLength: 30 }), (needs) => {
      const ids = needs.map((_, i) => `s${i}`);
      // Only earlier steps are needed, so there is no circle; the file's order is turned around.
      const edges = new Map(needs.map((list, i) => [
        ids[i],
        i === 0 ? [] : list.map((n) => ({ to: ids[n % i], path: [] })),
      ]));
      const { order, cycles } = sortSteps([...ids].reverse(), edges);
      assert.deepEqual(cycles, []);
      assert.deepEqual([...order].sort(), [...ids].sort());
      for (const [id, list] of edges) for (const { to } of list) assert.ok(order.indexOf(to) < order.indexOf(id));
    })));

  it("bears thousands of steps in a row", () => {
    const ids = Array.from({ length: 20_000 }, (_, i) => `s${i}`);
    const edges = new Map(ids.map((id, i) => [id, i + 1 < ids.length ? [{ to: ids[i + 1], path: [] }] : []]));
    assert.equal(sortSteps(ids, edges).order[0], "s19999");
  });
});

describe("the nearest name", () => {
  it("finds a name with one mistake in it, among others", () =>
    fc.assert(fc.property(fc.constantFrom("threshold", "capture", "strategy", "prompts"), fc.nat(), (word, at) => {
      const i = at % word.length;
      const wrong = [word.slice(0, i) + word.slice(i + 1), word.slice(0, i) + "x" + word.slice(i + 1), word + "s"];
      for (const w of wrong) assert.equal(nearest(w, ["seed", "threshold", "capture", "strategy", "prompts"]), word);
    })));

  it("suggests nothing for what resembles nothing", () => {
    assert.equal(nearest("zebra", ["seed", "steps"]), undefined);
    assert.equal(nearest("x", ["a", "b"]), undefined);
  });
});

describe("the terminal's small print", () => {
  it("decodes escapes and leaves other backslashes", () => {
    assert.equal(
      decodeEscapes(String.raw`\u200b \u{1F600} \xe9 \n \\ \q \u{110000}`),
      "\u200b \u{1F600} é \n \\ \\q \\u{110000}",
    );
  });

  it("decodes what it would take to write any text in escapes", () =>
    fc.assert(fc.property(fc.array(fc.integer({ min: 1, max: 0x10ffff })), (codes) => {
      const text = String.fromCodePoint(...codes.filter((code) => code < 0xd800 || code > 0xdfff));
      const escaped = [...text].map((c) => `\\u{${c.codePointAt(0)?.toString(16)}}`).join("");
      assert.equal(decodeEscapes(escaped), text);
    })));

  it("says durations as people do", () => {
    assert.deepEqual([0.04, 9.94, 59.4, 185, 7800].map(duration), [
      "0.0 s",
      "9.9 s",
      "59 s",
      "3 min 05 s",
      "2 h 10 min",
    ]);
  });

  it("quotes for the shell only where it must", () => {
    assert.deepEqual(["a/b.yaml", "x=1", "it's", "a b"].map(shellQuote), ["a/b.yaml", "x=1", `'it'\\''s'`, "'a b'"]);
  });
});
