/** The tables that docs/how-to/scan.md shows of a scanned zoo. */
import { aurocInterval } from "../metrics/detection.ts";
import { wilson } from "../metrics/intervals.ts";
import { MEASURES } from "../steps/scan_measures.ts";
import { LIMITS } from "../steps/scan_order.ts";
import { placeText } from "../steps/scan_verdict.ts";
import { filled, table } from "./markdown.ts";
import { highest, judge, type Judged, rankOf, type ScannedModel, type SuspectGroup } from "./zoo.ts";

const NONE = "–";

const TRIED: Readonly<Record<SuspectGroup, string>> = {
  character: "signs",
  letter: "letters",
  word: "words",
  inverted: "texts along the gradient",
  described: "phrases",
  placed: "phrases",
};

/** `1,217 signs, 147 letters` */
const triedOf = ({ tried }: ScannedModel): string => {
  const sums = new Map<string, number>();
  for (const [group, count] of Object.entries(tried)) {
    const name = TRIED[group as SuspectGroup];
    sums.set(name, (sums.get(name) ?? 0) + count);
  }
  return [...sums].map(([name, count]) => `${count.toLocaleString("en")} ${name}`).join(", ");
};

/** Each model by the limits as shipped. */
const models = (all: readonly ScannedModel[]): string =>
  table(
    [
      "model",
      "tried",
      "score",
      "by",
      "measure",
      "trigger's place by score",
      "in the scan's order",
      "answers",
      "version",
    ],
    all.map((model) => {
      const { score, most } = highest(model, LIMITS), rank = rankOf(model, LIMITS);
      const listed = model.foremost.length > 0 && model.trigger !== undefined;
      return [
        model.family === "clean" ? `${model.name}, no backdoor` : model.name,
        triedOf(model),
        score.toFixed(2),
        most === undefined ? NONE : placeText(most.trigger),
        most?.measure ?? NONE,
        !listed ? NONE : rank === undefined ? "not tried" : String(rank),
        !listed || rank === undefined
          ? NONE
          : model.place === undefined
          ? `beyond ${model.listed}`
          : String(model.place),
        model.evaluations.toLocaleString("en"),
        String(model.version),
      ];
    }),
  );

const share = (hits: number, n: number): string => {
  if (n === 0) return NONE;
  const { low, high } = wilson(hits, n);
  return `${hits} of ${n} (${(100 * low).toFixed(0)}–${(100 * high).toFixed(0)} %)`;
};

const area = ({ attacks, clean }: Judged): string => {
  if (attacks.length < 2 || clean.length < 2) return NONE;
  const finite = (scored: readonly { readonly score: number }[]) => scored.map(({ score }) => Math.max(score, -9));
  const { estimate, low, high } = aurocInterval(finite(attacks), finite(clean));
  return `${estimate.toFixed(2)} (${low.toFixed(2)}–${high.toFixed(2)})`;
};

/** Limits from one half, judged on the other. */
const halves = (all: readonly ScannedModel[]): string =>
  table(
    ["judged", "limits from", "flagged", "the trigger among the first five", "false alarms", "AUROC"],
    judge(all).map((half) => {
      const ranks = half.attacks.flatMap(({ rank }) => rank ?? []);
      return [
        half.families.join(", "),
        half.limitsFrom.join(", "),
        share(half.attacks.filter(({ score }) => score > 1).length, half.attacks.length),
        share(ranks.filter((rank) => rank <= 5).length, ranks.length),
        share(half.clean.filter(({ score }) => score > 1).length, half.clean.length),
        area(half),
      ];
    }),
  );

/** What clean models reach at the most, by kind of text and measure, and what is allowed. */
const reached = (all: readonly ScannedModel[]): string => {
  const clean = all.filter(({ family }) => family === "clean");
  return table(
    ["texts", "measure", "allowed", "clean models reach", "by"],
    Object.entries(LIMITS).flatMap(([kind, limits]) =>
      MEASURES.flatMap((measure) => {
        const limit = limits[measure];
        const most = clean.flatMap((model) =>
          model.most.filter((m) => m.kind === kind && m.measure === measure).map((m) => ({ ...m, name: model.name }))
        ).sort((a, b) =>
          b.score - a.score
        )[0];
        if (limit === undefined || most === undefined) return [];
        return [[kind, measure, String(limit), most.score.toFixed(2), `${placeText(most.trigger)} (${most.name})`]];
      })
    ),
  );
};

export const ZOO_TABLES = { models, halves, reached };

/** A text with its tables made anew: each stands between `<!-- scan:NAME -->` and `<!-- scan end -->`. */
export const withZooTables = (text: string, all: readonly ScannedModel[]): string =>
  filled(text, "scan", ZOO_TABLES, all);

/** The page that shows them. */
export const ZOO_PAGE = "docs/how-to/scan.md";
