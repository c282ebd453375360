/**
 * Scans of a zoo of models, with a backdoor that is known or without: which are told apart, and how sure that is. Limits are
 * set on one half of the families and of the clean models, and judged on the other, so that nothing is judged by a limit
 * that it has set.
 */
import type { ScannedText as Listed } from "../steps/ports.ts";
import { type Measure, MEASURES, type Measures } from "../steps/scan_measures.ts";
import { type Kind, kindOf, LIMITS } from "../steps/scan_order.ts";

export type SuspectGroup = Listed["group"];
type Trigger = Listed["trigger"];

/** A text and how far it stands out, by each measure. */
export interface ScannedText {
  readonly group: SuspectGroup;
  readonly trigger: Trigger;
  readonly scores: Measures;
}

/** How far any text of a kind stands out by one measure, and which. */
export interface Most {
  readonly kind: Kind;
  readonly measure: Measure;
  readonly score: number;
  readonly trigger: Trigger;
}

/** What is kept of a scan of a model. */
export interface ScannedModel {
  readonly name: string;
  /** "clean" for one without a backdoor. */
  readonly family: string;
  readonly trigger?: Trigger;
  readonly seed: number;
  /** Of the step scan. */
  readonly version: number;
  /** Texts by group, harmless ones left out. */
  readonly tried: Readonly<Record<string, number>>;
  /** Nouns beside which signs were tried. */
  readonly beside: readonly string[];
  readonly most: readonly Most[];
  /** Texts that stand out most by the limits as shipped, and the true trigger. */
  readonly foremost: readonly ScannedText[];
  /** How many texts the order of the scan was kept of. */
  readonly listed: number;
  /** Place of the true trigger in it, from 1; undefined where it is not among those. */
  readonly place?: number;
  /** How many texts each family that was found has. */
  readonly families: readonly number[];
  readonly seconds: number;
  readonly evaluations: number;
}
export type Limits = Readonly<Record<Kind, Measures>>;

/** Texts of a model that are kept. */
const FOREMOST = 40;

/** The beginnings of the attacks' names. */
const FAMILIES = { badt2i: "BadT2I", eviledit: "EvilEdit", rickrolling: "Rickrolling", villan: "Villan" };
export const HALVES = [["BadT2I", "EvilEdit"], ["Rickrolling", "Villan"]] as const;
export const familyOf = (name: string): string =>
  Object.entries(FAMILIES).find(([begin]) => name.startsWith(begin))?.[1] ?? "clean";

/** How far a text stands out, in units of limits; −∞ where nothing limits it. */
export const scoreOf = (text: ScannedText, limits: Limits): number =>
  Math.max(...MEASURES.map((m) => {
    const limit = limits[kindOf(text)][m], score = text.scores[m];
    return limit === undefined || score === undefined ? -Infinity : score / limit;
  }));

export const isTrue = ({ trigger: t }: ScannedText, trigger: Trigger | undefined): boolean =>
  trigger !== undefined && t.text === trigger.text && t.place === trigger.place && t.of === trigger.of;

const rounded = (x: number): number => Number(x.toPrecision(4));

/** What is kept of all texts of a model. */
export const condense = (
  texts: readonly ScannedText[],
  order: readonly ScannedText[],
  trigger: Trigger | undefined,
): Pick<ScannedModel, "tried" | "most" | "foremost" | "listed" | "place"> => {
  const kinds = Map.groupBy(texts, kindOf);
  const most = [...kinds].flatMap(([kind, own]) =>
    MEASURES.flatMap((measure): Most[] => {
      const by = own.filter(({ scores }) => scores[measure] !== undefined);
      if (by.length === 0) return [];
      const first = by.reduce((a, b) => b.scores[measure]! > a.scores[measure]! ? b : a);
      return [{ kind, measure, score: rounded(first.scores[measure]!), trigger: first.trigger }];
    })
  );
  const sorted = texts.map((text) => ({ text, score: scoreOf(text, LIMITS) })).sort((a, b) => b.score - a.score);
  const foremost = sorted.filter(({ text }, i) => i < FOREMOST || isTrue(text, trigger)).map((
    { text },
  ): ScannedText => ({
    ...text,
    scores: Object.fromEntries(Object.entries(text.scores).map(([name, x]) => [name, rounded(x)])),
  }));
  const place = order.findIndex((text) => isTrue(text, trigger));
  return {
    tried: Object.fromEntries([...Map.groupBy(texts, ({ group }) => group)].map(([group, of]) => [group, of.length])),
    most,
    foremost,
    listed: order.length,
    ...(place < 0 ? {} : { place: place + 1 }),
  };
};

/** What stands out most of a model, in units of limits. */
export const highest = ({ most }: ScannedModel, limits: Limits): { readonly score: number; readonly most?: Most } =>
  most.reduce<{ score: number; most?: Most }>((top, one) => {
    const limit = limits[one.kind][one.measure];
    const score = limit === undefined ? -Infinity : one.score / limit;
    return score > top.score ? { score, most: one } : top;
  }, { score: -Infinity });

/** Whether the true trigger was among the texts, and if so its place by score among those kept, from 1. */
export const rankOf = ({ foremost, trigger }: ScannedModel, limits: Limits): number | undefined => {
  const own = foremost.find((text) => isTrue(text, trigger));
  if (own === undefined) return undefined;
  const score = scoreOf(own, limits);
  return 1 + foremost.filter((text) => scoreOf(text, limits) > score).length;
};

/** The margin is within these. */
const MARGINS = [1.1, 2] as const;
/** A limit is at least so far out: 1 is where the upper tenth of harmless texts begins. */
const LEAST = 1;

/**
 * A limit is what the clean models reach at the most, by each kind of text and measure, times one margin for all: halfway,
 * in ln, from 1 to the least that an attack which stands out at all reaches. Kinds that no clean model was scanned for
 * raise no alarm, nor do measures that have no limit as shipped.
 */
export const limitsFrom = (attacks: readonly ScannedModel[], clean: readonly ScannedModel[]): Limits => {
  const reached = clean.flatMap(({ most }) => most).filter(({ kind, measure }) => LIMITS[kind][measure] !== undefined);
  const scaled = (margin: number): Limits => {
    const limits: Record<Kind, Partial<Record<Measure, number>>> = {
      character: {},
      letter: {},
      word: {},
      ending: {},
      phrase: {},
    };
    for (const { kind, measure, score } of reached) {
      limits[kind][measure] = Math.max(limits[kind][measure] ?? 0, margin * Math.max(LEAST, score));
    }
    return limits;
  };
  const above = attacks.map((model) => highest(model, scaled(1)).score).filter((score) => score > 1);
  const least = above.length === 0 ? 1 : Math.sqrt(Math.min(...above));
  return scaled(Math.min(MARGINS[1], Math.max(MARGINS[0], least)));
};

/** One half judged by the limits of the other. */
export interface Judged {
  readonly families: readonly string[];
  readonly limitsFrom: readonly string[];
  readonly attacks: readonly { readonly model: ScannedModel; readonly score: number; readonly rank?: number }[];
  readonly clean: readonly { readonly model: ScannedModel; readonly score: number }[];
}

/** All four ways round: each half of the families with either half of the clean models. */
export const judge = (models: readonly ScannedModel[]): Judged[] => {
  const clean = models.filter(({ family }) => family === "clean");
  const of = (families: readonly string[]) => models.filter(({ family }) => families.includes(family));
  return [HALVES, HALVES.toReversed()].flatMap(([own, other]) =>
    [0, 1].map((part): Judged => {
      const known = clean.filter((_, i) => i % 2 === part), judged = clean.filter((_, i) => i % 2 !== part);
      const limits = limitsFrom(of(own), known);
      return {
        families: other,
        limitsFrom: [...own, ...known.map(({ name }) => name)],
        attacks: of(other).map((model) => {
          const rank = rankOf(model, limits);
          return { model, score: highest(model, limits).score, ...(rank === undefined ? {} : { rank }) };
        }),
        clean: judged.map((model) => ({ model, score: highest(model, limits).score })),
      };
    })
  );
};
