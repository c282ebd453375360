/**
 * Makes the scan's tables in docs anew from bench/scans.json: `deno task bench:scans`. With folders that bench/scan.ts wrote,
 * it condenses those into bench/scans.json first, and into examples/mini-sd/clean/scans what `sau scan --clean` reads. A
 * test says where the tables are stale.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import process from "node:process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { condense, familyOf, highest, isTrue, type ScannedModel, type ScannedText } from "../src/bench/zoo.ts";
import { withZooTables, ZOO_PAGE } from "../src/bench/zoo_tables.ts";
import { LIMITS } from "../src/steps/scan_order.ts";

const at = (path: string) => fileURLToPath(new URL(`../${path}`, import.meta.url));
const SCANS = at("bench/scans.json"), CLEAN = at("examples/mini-sd/clean/scans");

interface Measured {
  readonly name: string;
  readonly facts: { readonly trigger?: ScannedText["trigger"] };
  readonly seed: number;
  readonly version: number;
  readonly beside: readonly string[];
  readonly families: readonly number[];
  readonly seconds: number;
  readonly evaluations: number;
  readonly texts: readonly ScannedText[];
  readonly order: readonly ScannedText[];
}

/** What several files hold of one model as one: each text once, with every measure that was taken of it. */
const joined = (files: readonly Measured[]): ScannedModel => {
  const texts = new Map<string, ScannedText>();
  for (const text of files.flatMap((file) => file.texts)) {
    const { group, trigger: { text: own, place, of = "" } } = text;
    const name = `${group}\n${place}\n${of}\n${own}`;
    texts.set(name, { ...text, scores: { ...texts.get(name)?.scores, ...text.scores } });
  }
  const [{ name, facts: { trigger }, seed }] = files;
  const sum = (of: (file: Measured) => number) => files.reduce((total, file) => total + of(file), 0);
  const tried = files.find(({ order }) => order.some((text) => isTrue(text, trigger))) ?? files[0];
  return {
    name,
    family: familyOf(name),
    ...(trigger === undefined ? {} : { trigger }),
    seed,
    version: Math.min(...files.map(({ version }) => version)),
    beside: files.flatMap(({ beside }) => beside),
    ...condense([...texts.values()], tried.order, trigger),
    families: files.flatMap(({ families }) => families),
    seconds: Math.round(sum((file) => file.seconds)),
    evaluations: sum((file) => file.evaluations),
  };
};

const condensed = (folder: string): ScannedModel[] => {
  const files = readdirSync(folder).filter((name) => name.endsWith(".json")).sort().map((file): Measured =>
    JSON.parse(readFileSync(join(folder, file), "utf8"))
  );
  return [...Map.groupBy(files, ({ name }) => name).values()].map(joined);
};

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
