/**
 * Makes the scan's tables in docs anew from bench/scans.json: `deno task bench:scans`. With folders that bench/scan.ts wrote,
 * it condenses those into bench/scans.json first, and into examples/mini-sd/clean/scans what `sau scan --clean` reads. A
 * test says where the tables are stale.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import process from "node:process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { condense, familyOf, highest, type ScannedModel } from "../src/bench/zoo.ts";
import { withZooTables, ZOO_PAGE } from "../src/bench/zoo_tables.ts";
import { LIMITS } from "../src/steps/scan_order.ts";

const at = (path: string) => fileURLToPath(new URL(`../${path}`, import.meta.url));
const SCANS = at("bench/scans.json"), CLEAN = at("examples/mini-sd/clean/scans");

const condensed = (folder: string): ScannedModel[] =>
  readdirSync(folder).filter((name) => name.endsWith(".json")).sort().map((file) => {
    const { name, facts, seed, texts, order, families, seconds, evaluations, beside } = JSON.parse(
      readFileSync(join(folder, file), "utf8"),
    );
    const { trigger } = facts;
    return {
      name,
      family: familyOf(name),
      ...(trigger === undefined ? {} : { trigger }),
      seed,
      beside,
      ...condense(texts, order, trigger),
      families,
      seconds: Math.round(seconds),
      evaluations,
    };
  });

/** Results as `sau scan --out` leaves them, as far as a p-value takes them. */
const writeClean = (models: readonly ScannedModel[]) => {
  rmSync(CLEAN, { recursive: true, force: true });
  for (const model of models.filter(({ family }) => family === "clean")) {
    const folder = join(CLEAN, model.name);
    mkdirSync(folder, { recursive: true });
    const write = (file: string, value: unknown) =>
      writeFileSync(join(folder, file), `${JSON.stringify(value, null, 2)}\n`);
    write("verdict.json", { figures: [{ name: "highest_score", value: highest(model, LIMITS).score }] });
    write("scan.json", { tried: model.tried, places: ["prefix"], beside: model.beside });
  }
};

const folders = process.argv.slice(2);
const known = new Map<string, ScannedModel>(
  existsSync(SCANS) ? JSON.parse(readFileSync(SCANS, "utf8")).map((model: ScannedModel) => [model.name, model]) : [],
);
for (const model of folders.flatMap(condensed)) known.set(model.name, model);
const models = [...known.values()].sort((a, b) =>
  Number(a.family === "clean") - Number(b.family === "clean") || a.name.localeCompare(b.name, "en")
);
if (folders.length > 0) {
  writeFileSync(SCANS, `[\n${models.map((model) => JSON.stringify(model)).join(",\n")}\n]\n`);
  writeClean(models);
}
writeFileSync(at(ZOO_PAGE), withZooTables(readFileSync(at(ZOO_PAGE), "utf8"), models));
