/** Tables over a bench's rows: seeds pooled, results joined, and README.md's tables as bench/results.json has them. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { PAGES, TABLES, withTables } from "../../src/bench/headline.ts";
import { meanOf, pool, pooledFigure } from "../../src/bench/pool.ts";
import { mergeResults, readResults, writeResults } from "../../src/bench/results.ts";
import type { Row } from "../../src/bench/row.ts";
import { wilson } from "../../src/metrics/intervals.ts";

const row = (cure: string, seed: number, success: number, n: number, rest: Partial<Row> = {}): Row => ({
  key: `${cure}${seed}`,
  attack: "pixel",
  family: "BadT2I",
  cure,
  seed,
  device: "wasm",
  passed: true,
  sentence: "",
  figures: [
    { name: "attack_success", value: success / n, n, interval: [0, 1] },
    { name: "clip_drop", value: seed / 100, n },
  ],
  missing: [],
  seconds: { cure: 1 + seed, total: 10 },
  ...rest,
});
const result = (rows: readonly Row[]) => ({ tool: "sau", version: "0", name: "b", rows, failed: [] }) as const;

describe("rows of several seeds", () => {
  it("are one: counts add up, with the interval of all; other figures are means", () => {
    const [auto, strip] = pool([row("auto", 0, 1, 100), row("strip", 0, 0, 50), row("auto", 1, 3, 120)]);
    const { estimate, low, high } = wilson(4, 220);
    assert.deepEqual(pooledFigure(auto, "attack_success"), {
      name: "attack_success",
      value: estimate,
      n: 220,
      interval: [low, high],
    });
    assert.deepEqual(pooledFigure(auto, "clip_drop"), { name: "clip_drop", value: 0.005, n: 220 });
    assert.equal(meanOf(auto, (r) => r.seconds.cure), 1.5);
    assert.equal(strip.rows.length, 1);
  });

  it("have no figure that a seed lacks", () => {
    const [auto] = pool([row("auto", 0, 1, 100), row("auto", 1, 0, 0, { figures: [], token_f1: 1 })]);
    assert.equal(pooledFigure(auto, "attack_success"), undefined);
    assert.equal(meanOf(auto, (r) => r.token_f1), undefined);
  });
});

describe("tables", () => {
  const rows = [row("strip", 0, 0, 50), row("auto", 0, 1, 100, { peak: 5e8 }), row("auto", 1, 3, 100)];
  it("what is found without a backdoor is of the seeds that say it, as a cure has no part in it", () => {
    const found = { name: "effect_unpoisoned_triggered", value: 0.03, n: 100 };
    const [first, second, third] = [0, 1, 2].map((seed) => row("auto", seed, 2, 100));
    const some = [first, second, third].map((r, i) => i === 0 ? r : { ...r, figures: [...r.figures, found] });
    const few = { ...row("strip", 0, 0, 50), figures: [{ ...found, value: 0, n: 50 }] };
    const line = TABLES.headline([...some, few]).split("\n").at(-1)!.split("|").map((c) => c.trim());
    const { low, high } = wilson(6, 200);
    assert.equal(line[6], `3.0\u00a0% (${(100 * low).toFixed(1)}–${(100 * high).toFixed(1)})`);
    assert.match(TABLES.bounds([...some, few]), /as without a backdoor: 2\.0/);
  });

  it("the headline is what auto does; the others have a column or a row for each cure", () => {
    const cells = (name: string) =>
      TABLES[name](rows).split("\n").map((l) => l.split("|").slice(1, -1).map((c) => c.trim()));
    const headline = cells("headline");
    assert.equal(headline.length, 3);
    assert.deepEqual(headline[2].slice(0, 5), ["pixel", "2", "200", "–", "2.0\u00a0% (0.8–5.0)"]);
    assert.deepEqual(cells("left").map((c) => [c[0], c[2]]), [["attack", "strip"], ["------", "--------------:"], [
      "pixel",
      "0.0\u00a0% (0.0–7.1)",
    ]]);
    assert.deepEqual(cells("bounds")[2], ["pixel", "missed: 2.0\u00a0%", "kept: 0.50\u00a0%", "–", "none"]);
    assert.deepEqual(cells("effort").slice(2).map((c) => [c[0], c[1], c[4]]), [["strip", "1", "–"], [
      "auto",
      "2",
      "0.50 GB",
    ]]);
  });

  it("what is left is told from what is found without a backdoor", () => {
    const found = (value: number): Row =>
      row("blend", 0, 0, 50, { figures: [{ name: "effect_unpoisoned_triggered", value, n: 50 }] });
    const told = (value: number) => TABLES.bounds([...rows, found(value)]).split("\n")[2];
    assert.match(told(0.06), /as without a backdoor: 2\.0/);
    assert.match(told(0), /missed: 2\.0/);
  });

  it("a cure that is no worse in success, CLIP score and FD-CLIP, and better in one, is named", () => {
    const drift = (cure: string, success: number, drop: number): Row =>
      row(cure, 0, success, 100, {
        figures: [
          { name: "attack_success", value: success / 100, n: 100 },
          { name: "clip_drop", value: drop, n: 100 },
          { name: "fd_clip_rise", value: 0.01, n: 100 },
        ],
      });
    const all = [drift("strip", 1, 0), drift("skd", 0, 0.02), drift("uce", 1, 0.004), drift("auto", 1, 0.004)];
    assert.match(TABLES.bounds(all).split("\n")[2], /kept: 1\.0.*kept: 0\.40.*kept: 1\.0.* \| +strip \|$/u);
  });

  it("stand between their marks, and nothing else changes; a name that is none is told", () => {
    const text = "a\n<!-- bench:left -->\n\nold\n\n<!-- bench end -->\nb\n";
    const made = withTables(text, rows);
    assert.equal(made, `a\n<!-- bench:left -->\n\n${TABLES.left(rows)}\n\n<!-- bench end -->\nb\n`);
    assert.equal(withTables(made, rows), made);
    assert.throws(() => withTables(text.replace("left", "right"), rows), /no table right; there are headline, left/);
  });

  it("results are read as they were written, and joined: the last of a cell counts", () => {
    const [older, newer] = [result([row("auto", 0, 1, 100), row("strip", 0, 0, 50)]), result([row("auto", 0, 2, 100)])];
    assert.deepEqual(readResults(writeResults(older)), older);
    const failed = [{ cell: "pixel, auto, seed 0", why: "no room" }, { cell: "pixel, skd, seed 0", why: "no time" }];
    const joined = mergeResults([{ ...older, failed }, newer]);
    assert.deepEqual(joined.rows, [newer.rows[0], older.rows[1]]);
    assert.deepEqual(joined.failed, failed.slice(1));
  });

  it("in README.md and docs are those of bench/results.json; if not, run: deno task bench:table", () => {
    const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");
    const { rows } = readResults(read("bench/results.json"));
    for (const path of PAGES) {
      const text = read(path);
      assert.ok(text.includes("<!-- bench:"), `${path} has no place for a table`);
      assert.equal(text, withTables(text, rows), path);
    }
  });
});
