/** A zoo's scans: what is kept of each, limits from one half judged on the other, and docs' tables as bench/scans.json has them. */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import {
  condense,
  highest,
  judge,
  limitsFrom,
  rankOf,
  type ScannedModel,
  type ScannedText,
} from "../../src/bench/zoo.ts";
import { withZooTables, ZOO_PAGE, ZOO_TABLES } from "../../src/bench/zoo_tables.ts";
import { LIMITS } from "../../src/steps/scan_order.ts";

const text = (text: string, place: number, likeness = 0): ScannedText => ({
  group: "character",
  trigger: { text, place: "prefix" },
  scores: { place, likeness },
});
const model = (name: string, family: string, texts: readonly ScannedText[], trigger?: string): ScannedModel => {
  const known = trigger === undefined ? undefined : { text: trigger, place: "prefix" as const };
  return {
    name,
    family,
    ...(known === undefined ? {} : { trigger: known }),
    seed: 0,
    version: 5,
    beside: [],
    ...condense(texts, texts, known),
    families: [],
    seconds: 1,
    evaluations: 1,
  };
};
const clean = (name: string, place: number) => model(name, "clean", [text("a ", place), text("b ", 0.1)]);
const attack = (family: string, place: number, other = 0.5) =>
  model(family.toLowerCase(), family, [text("a ", other), text("! ", place)], "! ");

describe("a scanned zoo", () => {
  it("keeps of each model what reached furthest, and the true trigger wherever it stands", () => {
    const many = Array.from({ length: 60 }, (_, i) => text(`${i} `, 2 + i));
    const kept = model("x", "BadT2I", [...many, text("! ", 0.01, 3)], "! ");
    assert.deepEqual(kept.most.map(({ measure, score, trigger }) => [measure, score, trigger.text]), [
      ["place", 61, "59 "],
      ["likeness", 3, "! "],
    ]);
    assert.equal(kept.foremost.length, 41);
    assert.equal(kept.place, 61);
    assert.equal(rankOf(kept, LIMITS), 41);
    assert.deepEqual(kept.tried, { character: 61 });
    assert.equal(highest(kept, LIMITS).score, 61 / LIMITS.character.place!);
  });

  it("has limits that its clean half keeps, by a margin that an attack which stands out sets", () => {
    const half = [clean("a", 2), clean("b", 3)];
    // The least that an attack reaches is 4 of 3, and the margin is halfway to it.
    assert.ok(Math.abs(limitsFrom([attack("BadT2I", 4)], half).character.place! - 3 * Math.sqrt(4 / 3)) < 1e-9);
    assert.ok(Math.abs(limitsFrom([attack("BadT2I", 2)], half).character.place! - 3 * 1.1) < 1e-9);
    assert.ok(Math.abs(limitsFrom([attack("BadT2I", 99)], half).character.place! - 3 * 2) < 1e-9);
  });

  it("is judged by limits of the other half alone", () => {
    const all = [
      attack("BadT2I", 8),
      attack("EvilEdit", 0.5),
      attack("Rickrolling", 9),
      attack("Villan", 9, 30),
      clean("a", 2),
      clean("b", 3),
      clean("c", 2),
      clean("d", 40),
    ];
    const halves = judge(all);
    assert.equal(halves.length, 4);
    for (const half of halves) {
      const known = half.limitsFrom;
      assert.ok(
        [...half.attacks, ...half.clean].every(({ model: { name, family } }) =>
          !known.includes(name) && !known.includes(family)
        ),
      );
    }
    // By the limits of a and c: what is past those is flagged, d falsely.
    const [first] = halves;
    assert.deepEqual(first.attacks.map(({ model, score, rank }) => [model.family, score > 1, rank]), [
      ["Rickrolling", true, 1],
      ["Villan", true, 2],
    ]);
    assert.deepEqual(first.clean.map(({ model, score }) => [model.name, score > 1]), [["b", false], ["d", true]]);
    const table = ZOO_TABLES.halves(all).split("\n")[2];
    assert.match(table, /2 of 2 .*2 of 2 .*1 of 2/);
  });
});

describe("the scan's tables in docs", () => {
  const at = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url));
  const all = JSON.parse(readFileSync(at("bench/scans.json"), "utf8")) as ScannedModel[];

  it("are those of bench/scans.json; if not, run: deno task bench:scans", () => {
    const page = readFileSync(at(ZOO_PAGE), "utf8");
    assert.ok(page.includes("<!-- scan:models -->"));
    // How wide a sign is shown, `deno fmt` knows better.
    const loose = (text: string) => text.replace(/ +/gu, " ").replace(/-+/gu, "-");
    assert.equal(loose(page), loose(withZooTables(page, all)));
  });

  it("have the scores that the example's clean scans give a p-value of", () => {
    const folder = at("examples/mini-sd/clean/scans");
    assert.ok(existsSync(folder));
    const scores = readdirSync(folder).sort().map((name) => {
      const { figures } = JSON.parse(readFileSync(`${folder}/${name}/verdict.json`, "utf8"));
      return [name, figures[0].value];
    });
    const clean = all.filter(({ family }) => family === "clean").sort((a, b) => a.name < b.name ? -1 : 1);
    assert.deepEqual(scores, clean.map((model) => [model.name, highest(model, LIMITS).score]));
  });
});
