/**
 * Error rates of `sau scan`: limits are set on one half of the attack families and of the clean models, and measured on the
 * other half, both ways round.
 *
 *     deno run -A bench/scan_rates.ts out/bench          # the folder that bench/scan.ts wrote
 *
 * A limit is what the clean models of a half reach at the most, by each measure, times one margin for all: halfway, in ln,
 * from 1 to the least that an attack of the half which stands out at all reaches. So nothing is judged by a limit that it
 * has set. Kinds of texts that no clean model of the half was scanned for raise no alarm. Files of one model with different
 * kinds of texts are put together.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { aurocInterval } from "../src/metrics/detection.ts";
import { wilson } from "../src/metrics/intervals.ts";
import type { SuspectGroup } from "../src/diffusion/suspects.ts";
import type { Trigger } from "../src/diffusion/trigger.ts";
import { type Measure, MEASURES, type Measures } from "../src/steps/scan_measures.ts";
import { placeText } from "../src/steps/scan_verdict.ts";
import { type Kind, kindOf, LIMITS } from "../src/steps/scan_order.ts";

interface Entry {
  readonly group: SuspectGroup;
  readonly trigger: Trigger;
  readonly scores: Measures;
}
interface Model {
  readonly name: string;
  readonly family: string;
  readonly trigger?: Trigger;
  readonly texts: ReadonlyMap<string, Entry>;
}
type Limits = Readonly<Record<Kind, Measures>>;

const HALVES = [["BadT2I", "EvilEdit"], ["Rickrolling", "Villan"]];
const KINDS: readonly Kind[] = ["character", "letter", "word", "ending", "phrase"];
/** The margin is within these. */
const MARGINS = [1.1, 2];
/** A limit is at least so far out: 1 is where the upper tenth of harmless texts begins. */
const LEAST = 1;

const familyOf = (name: string): string =>
  name.startsWith("badt2i")
    ? "BadT2I"
    : name.startsWith("eviledit")
    ? "EvilEdit"
    : name.startsWith("rickrolling")
    ? "Rickrolling"
    : name.startsWith("villan")
    ? "Villan"
    : "clean";

const nameOf = ({ group, trigger: { text, place, of = "" } }: Entry): string => `${group}\n${place}\n${of}\n${text}`;

const read = (folders: readonly string[]): Model[] => {
  const files = folders.flatMap((folder) =>
    readdirSync(folder).filter((name) => name.endsWith(".json")).sort().map((name) => join(folder, name))
  );
  const models = new Map<string, { trigger?: Trigger; texts: Map<string, Entry> }>();
  for (const file of files) {
    const { name, facts, texts } = JSON.parse(readFileSync(file, "utf8"));
    const own = models.get(name) ?? { trigger: facts.trigger, texts: new Map() };
    for (const entry of texts as Entry[]) {
      const known = own.texts.get(nameOf(entry));
      own.texts.set(nameOf(entry), { ...entry, scores: { ...known?.scores, ...entry.scores } });
    }
    models.set(name, own);
  }
  return [...models].map(([name, own]) => ({ name, family: familyOf(name), ...own }));
};

/** How far a text of a model stands out, in units of limits; −∞ where nothing limits it. */
const scoreOf = ({ group, trigger, scores }: Entry, limits: Limits): number =>
  Math.max(...MEASURES.map((m) => {
    const limit = limits[kindOf({ group, trigger })][m], score = scores[m];
    return limit === undefined || score === undefined ? -Infinity : score / limit;
  }));

const highest = ({ texts }: Model, limits: Limits): number =>
  [...texts.values()].reduce((top, entry) => Math.max(top, scoreOf(entry, limits)), -Infinity);

const foremost = ({ texts }: Model, limits: Limits): Entry | undefined =>
  [...texts.values()].sort((a, b) => scoreOf(b, limits) - scoreOf(a, limits))[0];

const shown = (entry: Entry | undefined): string => entry === undefined ? "nothing" : placeText(entry.trigger);

const isTrue = ({ trigger: t }: Entry, trigger: Trigger | undefined): boolean =>
  t.text === trigger?.text && t.place === trigger.place && t.of === trigger.of;

/** Place of the true trigger among all texts of the model by score, from 1; undefined where it was not tried. */
const rankOf = ({ texts, trigger }: Model, limits: Limits): number | undefined => {
  const own = [...texts.values()].find((entry) => isTrue(entry, trigger));
  if (own === undefined) return undefined;
  const score = scoreOf(own, limits);
  return 1 + [...texts.values()].filter((entry) => scoreOf(entry, limits) > score).length;
};

const limitsFrom = (attacks: readonly Model[], clean: readonly Model[]): Limits => {
  const reached = (kind: Kind, measure: Measure): number[] =>
    clean.flatMap(({ texts }) => [...texts.values()].flatMap((e) => kindOf(e) === kind ? e.scores[measure] ?? [] : []));
  const scaled = (margin: number): Limits =>
    Object.fromEntries(KINDS.map((kind) => [
      kind,
      Object.fromEntries(MEASURES.flatMap((measure) => {
        // Where the limits as shipped have none, a measure says nothing of that kind.
        const all = LIMITS[kind][measure] === undefined ? [] : reached(kind, measure);
        return all.length === 0 ? [] : [[measure, margin * all.reduce((a, b) => Math.max(a, b), LEAST)]];
      })),
    ])) as Record<Kind, Measures>;
  const above = attacks.map((model) => highest(model, scaled(1))).filter((score) => score > 1);
  return scaled(
    above.length === 0 ? MARGINS[0] : Math.min(MARGINS[1], Math.max(MARGINS[0], Math.sqrt(Math.min(...above)))),
  );
};

const rate = (hits: number, n: number): string => {
  if (n === 0) return "none measured";
  const { low, high } = wilson(hits, n);
  return `${hits} of ${n} (${(100 * low).toFixed(0)}–${(100 * high).toFixed(0)} %)`;
};

const main = () => {
  const models = read(process.argv.slice(2));
  const judgements: string[] = [];
  const clean = models.filter(({ family }) => family === "clean");
  const attacks = models.filter(({ family }) => family !== "clean");
  const tried = ({ texts }: Model) =>
    [...Map.groupBy(texts.values(), ({ group }) => group)].map(([group, of]) => `${of.length} ${group}`).join(", ");
  console.log("With the limits as shipped:\n\n| model | tried | highest | rank of the trigger |\n|---|---|---|---|");
  for (const model of models) {
    console.log(
      `| ${model.name} | ${tried(model)} | ${highest(model, LIMITS).toFixed(2)} | ${rankOf(model, LIMITS) ?? "–"} |`,
    );
  }
  console.log("\n| judged | limits from | detected | true trigger in the first five | false alarms | AUROC |");
  console.log("|---|---|---|---|---|---|");
  for (const [own, other] of [HALVES, HALVES.toReversed()]) {
    for (const part of [0, 1]) {
      const known = clean.filter((_, i) => i % 2 === part), judged = clean.filter((_, i) => i % 2 !== part);
      const limits = limitsFrom(attacks.filter(({ family }) => own.includes(family)), known);
      const others = attacks.filter(({ family }) => other.includes(family));
      const scores = others.map((model) => highest(model, limits)), harmless = judged.map((m) => highest(m, limits));
      const ranks = others.flatMap((model) => rankOf(model, limits) ?? []);
      const area = scores.length < 2 || harmless.length < 2
        ? undefined
        : aurocInterval(scores.map((s) => Math.max(s, -9)), harmless.map((s) => Math.max(s, -9)));
      console.log(
        `| ${other.join(", ")} | ${own.join(", ")}; ${known.map(({ name }) => name).join(", ")} | ${
          rate(scores.filter((s) => s > 1).length, scores.length)
        } | ${rate(ranks.filter((r) => r <= 5).length, ranks.length)} | ${
          rate(harmless.filter((s) => s > 1).length, harmless.length)
        } | ${
          area === undefined ? "–" : `${area.estimate.toFixed(2)} (${area.low.toFixed(2)}–${area.high.toFixed(2)})`
        } |`,
      );
      judgements.push(
        ...[...others, ...judged].map((m) =>
          `${m.name} ${highest(m, limits).toFixed(2)} by ${shown(foremost(m, limits))}`
        ),
        "",
      );
    }
  }
  console.log(`\nHighest scores, in the order of the table:\n\n${judgements.join("\n")}`);
};
main();
