/**
 * The funnel of a scan, from cheap to dear: every text's embeddings; the U-Net's answers to signs, letters and words; of
 * phrases, which are many, its answers to those alone whose embeddings stand out most.
 */
import { Effect } from "effect";
import type { Bundle } from "../diffusion/bundle.ts";
import { invisible } from "../diffusion/lookalikes.ts";
import { bareText, type End, putAt, type Suspect } from "../diffusion/suspects.ts";
import { quantileOfSorted } from "../tensor/quantile.ts";
import { sample, seedOf } from "../tensor/random.ts";
import { report } from "./progress.ts";
import { kindOf } from "./scan_order.ts";
import { openAsking, openReading, TOGETHER } from "./scan_probe.ts";
import { invert, STARTS, STEPS } from "./scan_invert.ts";
import { besideOne, type Change, fieldsAgainst, type Response, standOut } from "./scan_measures.ts";
import type { Measures } from "./scan_measures.ts";
import type { About, ProbeSettings, Trial, Trials } from "./scan_texts.ts";

/** Phrases that the U-Net is asked about. */
const ASKED = 20;
/**
 * Share of words that count as doing little by themselves. In a model with a backdoor some ordinary words move the answer
 * a little its way; fewer would leave those out.
 */
const IDLE = 0.75;
/** Signs that texts are put together of, beside words. */
const SIGNS = 100;
/** Prompts that signs are tried in from pure noise. */
const AT_START = 3;
/** What asking the U-Net about a text costs beside reading it, roughly: progress counts in readings. */
const COST = 20;

/** A text, and how far it stands out from others of its kind. */
export interface Examined {
  readonly suspect: Suspect;
  readonly prompts: readonly string[];
  readonly scores: Measures;
  /** ln of how much further it moves each cell than is usual, [h·w]; of phrases for those that were asked about. */
  readonly field?: Float32Array;
  /** Of signs that were tried beside one noun after another, the one beside which it stands out most. */
  readonly about?: About;
}

/** Signs that are tried beside every noun: those that people would not see, and so many others, harmless or not. */
const BESIDE = { harmless: 64, others: 96 };
/** Nouns beside which all signs are tried. */
const REACTIVE = 3;
/** Signs that are asked about in more prompts about the noun beside which they stand out. */
const CONFIRMED = 32;

/** Numbers of the signs that are tried beside nouns: a few beside all of them, the rest beside some. */
interface Signs {
  readonly place: End;
  readonly few: readonly number[];
  readonly rest: readonly number[];
}

const signsOf = ({ texts: { suspects } }: Trials, place: End, seed: number): Signs => {
  const signs = [...suspects.keys()].filter((i) =>
    suspects[i].group === "character" && suspects[i].trigger.place === place
  );
  const some = (what: string, from: readonly number[], count: number) =>
    sample(seedOf(seed, "scan", "beside", what), from, count);
  const hidden = signs.filter((i) => invisible.includes(bareText(suspects[i].trigger)));
  const seen = signs.filter((i) => !hidden.includes(i));
  const harmless = some("harmless", seen.filter((i) => suspects[i].harmless), BESIDE.harmless);
  const others = some("others", seen.filter((i) => !suspects[i].harmless), BESIDE.others);
  const few = [...harmless, ...hidden, ...others];
  const rest = seen.filter((i) => !suspects[i].harmless && !others.includes(i));
  return { place, few, rest };
};

export const examine = Effect.fnUntraced(function* (bundle: Bundle, trials: Trials, settings: ProbeSettings) {
  const { texts, phrases, about } = trials;
  const count = [texts, ...phrases].reduce((sum, t) => sum + t.suspects.length, 0);
  const words = [...texts.suspects.keys()].filter((i) => texts.suspects[i].group === "word");
  const characters = [...texts.suspects.keys()].filter((i) => texts.suspects[i].group === "character");
  const signs = about.length === 0
    ? []
    : [...new Set(settings.places)].map((place) => signsOf(trials, place, settings.seed));
  // Progress counts questions in as many prompts as texts are asked about.
  const besides = signs.reduce(
    (sum, { few, rest }) => sum + (few.length * about.length + rest.length * REACTIVE) / settings.count,
    0,
  );
  const startsOfSigns = characters.length * Math.min(AT_START, texts.prompts.length) / settings.count;
  const searched = trials.invert.length * (SIGNS + STARTS * ((STEPS + 1) * TOGETHER + 2));
  const total = count + COST * (texts.suspects.length + words.length + startsOfSigns + besides + searched);
  let done = 0, evaluations = 0;
  const progress = (note: string, { suspects }: Trial, cost: number) => (begin: number) =>
    report({ done: Math.min(total, done + cost * begin), total, note: `${note}, ${suspects.length - begin} left` });

  const read = yield* Effect.scoped(Effect.gen(function* () {
    const reading = yield* openReading(bundle);
    const found: Response[][] = [];
    for (const [i, trial] of [texts, ...phrases].entries()) {
      const note = i === 0
        ? "reading texts that could be a trigger"
        : `reading phrases of "${trial.suspects[0].trigger.of}"`;
      const say = progress(note, trial, 1);
      found.push(yield* reading(`read ${i}`, trial.prompts, trial.suspects, say));
      done += trial.suspects.length;
    }
    return found;
  }));

  const asking = yield* openAsking(bundle, settings, settings.count);
  const ask = Effect.fnUntraced(function* (name: string, trial: Trial, note: string, at = settings.at, cost = COST) {
    const changes = yield* asking.ask(name, trial.prompts, trial.suspects, progress(note, trial, cost), at);
    evaluations += Math.ceil(trial.suspects.length / TOGETHER) * (TOGETHER + 1) * trial.prompts.length;
    return changes;
  });

  /**
   * Signs beside one noun after another: some of them beside all, then the others beside the few nouns where those do most,
   * since signs that are read alike set a backdoor off alike.
   * @param changes of all texts
   */
  const askBeside = Effect.fnUntraced(function* ({ place, few, rest }: Signs, changes: readonly Change[]) {
    const all = [...few, ...rest];
    const strengths = new Map(all.map((i) => [i, new Float32Array(about.length).fill(NaN)]));
    const askAbout = Effect.fnUntraced(function* (some: readonly number[], nouns: readonly number[], where: string) {
      const trial = { prompts: nouns.map((p) => about[p].prompts[0]), suspects: some.map((i) => texts.suspects[i]) };
      const cost = COST * nouns.length / settings.count;
      const note = `asking the U-Net about signs beside ${where}`;
      const asked = yield* ask(`beside ${where} ${place}`, trial, note, settings.at, cost);
      done += cost * some.length;
      some.forEach((i, k) => nouns.forEach((p, n) => strengths.get(i)!.fill(asked[k].each[n], p, p + 1)));
    });
    const judged = (some: readonly number[]) =>
      besideOne(
        some.map((i) => strengths.get(i)!),
        some.map((i) => changes[i].strength),
        some.flatMap((i, k) => texts.suspects[i].harmless ? [k] : []),
      );
    yield* askAbout(few, [...about.keys()], `each of ${about.length} nouns`);
    const first = judged(few).filter((_, k) => !texts.suspects[few[k]].harmless);
    const most = about.map((_, p) => Math.max(...first.map(({ noun, score }) => noun === p ? score : -Infinity)));
    const reactive = [...about.keys()].sort((a, b) => most[b] - most[a]).slice(0, REACTIVE);
    if (rest.length > 0) yield* askAbout(rest, reactive, reactive.map((p) => about[p].noun).join(", "));
    // One prompt may be a matter of chance, so that what stands out is asked about in others about the same noun.
    const once = judged(all), harmless = all.flatMap((i, k) => texts.suspects[i].harmless ? [k] : []);
    const outliers = [...all.keys()].filter((k) => !texts.suspects[all[k]].harmless)
      .sort((a, b) => once[b].score - once[a].score).slice(0, CONFIRMED);
    const again = new Map<number, Map<number, number>>();
    for (const [noun, own] of Map.groupBy(outliers, (k) => once[k].noun)) {
      const some = [...harmless, ...own], prompts = about[noun].prompts.slice(1);
      const trial = { prompts, suspects: some.map((k) => texts.suspects[all[k]]) };
      const note = `asking the U-Net again about signs beside ${about[noun].noun}`;
      const asked = yield* ask(`again beside ${about[noun].noun} ${place}`, trial, note, settings.at, 0);
      again.set(noun, new Map(some.map((k, i) => [k, asked[i].strength])));
    }
    const beside = besideOne(
      all.map((i) => strengths.get(i)!),
      all.map((i) => changes[i].strength),
      harmless,
      again,
    );
    return beside.map((of, k) => [all[k], of] as const);
  });

  /** Texts of words and signs that do nothing by themselves, searched for along the gradient, and what was seen of them. */
  const searchTexts = Effect.fnUntraced(function* (place: End) {
    const { prompts } = texts;
    const signs = sample(seedOf(settings.seed, "scan", "signs"), bundle.tokenizer.signs(), SIGNS)
      .map(putAt(place, "word"));
    const small = { prompts, suspects: signs };
    const of = `as ${place}`, where = place === "prefix" ? "before a prompt" : "behind a prompt";
    const listed = [...first.suspects.entries()].filter(([, { trigger }]) => trigger.place === place);
    const words = listed.map(([i]) => starts[i]);
    const asked = yield* ask(`start signs ${of}`, small, `asking the U-Net about signs ${where}, from pure noise`, 0);
    const alone = [...words, ...asked];
    done += COST * SIGNS;
    const most = quantileOfSorted(words.map(({ strength }) => strength).sort((a, b) => a - b), IDLE);
    const idle = [...listed.map(([, word]) => word), ...signs].map(({ trigger }) => bareText(trigger)).filter((
      text,
      i,
    ) => alone[i].strength < most && bundle.tokenizer.tokens(text).length === 1);
    const note = `searching for texts ${where} along the gradient`;
    const begun = done;
    const tell = (n: number) => report({ done: Math.min(total, begun + COST * n), total, note });
    const stage = yield* asking.begin("start", prompts, 0);
    const search = yield* Effect.scoped(invert(bundle, asking, stage, place, idle, settings.seed, tell));
    evaluations += search.evaluations;
    done = begun + COST * STARTS * (STEPS + 1) * TOGETHER;
    const trial = { prompts, suspects: search.texts };
    if (search.texts.length === 0) return { suspects: [], responses: [] };
    const own = yield* Effect.scoped(Effect.flatMap(
      openReading(bundle),
      (reading) => reading(`read inverted ${of}`, prompts, trial.suspects, () => Effect.void),
    ));
    const moved = yield* ask(`ask inverted ${of}`, trial, `asking the U-Net about the texts found ${where}`);
    done += COST * STARTS;
    const start = yield* ask(
      `start inverted ${of}`,
      trial,
      `asking the U-Net about the texts found ${where}, from pure noise`,
      0,
    );
    done += COST * STARTS;
    return {
      suspects: search.texts,
      responses: own.map((r, i): Response => ({ ...r, change: moved[i], start: start[i].strength })),
    };
  });

  const changes = yield* ask("ask", texts, "asking the U-Net about texts");
  done += COST * texts.suspects.length;
  // A word with a meaning moves what is drawn already further than one that takes the picture over from the start.
  const first = { prompts: texts.prompts, suspects: words.map((i) => texts.suspects[i]) };
  const starts = yield* ask("start", first, "asking the U-Net about words, from pure noise", 0);
  done += COST * words.length;
  // Signs mean nothing, so a few prompts say whether one does.
  const few = { prompts: texts.prompts.slice(0, AT_START), suspects: characters.map((i) => texts.suspects[i]) };
  const cost = COST * few.prompts.length / settings.count;
  const signStarts = characters.length === 0
    ? []
    : yield* ask("start of signs", few, "asking the U-Net about signs, from pure noise", 0, cost);
  done += cost * characters.length;
  const beside = new Map((yield* Effect.forEach(signs, (of) => askBeside(of, changes))).flat());
  const startOf = new Map([
    ...words.map((i, k) => [i, starts[k].strength] as const),
    ...characters.map((i, k) => [i, signStarts[k].strength] as const),
  ]);
  const responses = read[0].map((reading, i): Response => {
    const start = startOf.get(i), most = beside.get(i);
    return {
      ...reading,
      change: changes[i],
      ...(start === undefined ? {} : { start }),
      ...(most === undefined ? {} : { beside: most }),
    };
  });

  const found = yield* Effect.forEach(trials.invert, searchTexts);
  done = total;
  const single = standing(
    [...texts.suspects, ...found.flatMap((f) => f.suspects)],
    [...responses, ...found.flatMap((f) => f.responses)],
    texts.prompts,
    about,
  );

  const all = phrases.flatMap(({ suspects, prompts }, t) =>
    suspects.map((suspect, i) => ({ suspect, prompts, response: read[t + 1][i] }))
  );
  const kinds = [...Map.groupBy(all, ({ suspect }) => suspect.group).values()];
  const scored = kinds.flatMap((some) => {
    const scores = standOut(some.map((s) => s.response), [...some.keys()]);
    return some.map(({ suspect, prompts }, i): Examined => ({ suspect, prompts, scores: scores[i] }));
  }).sort((a, b) => (b.scores.reach ?? 0) - (a.scores.reach ?? 0));
  const foremost = scored.slice(0, ASKED), fields = new Map<Suspect, Float32Array>();
  for (const [noun, own] of Map.groupBy(foremost, ({ suspect }) => suspect.trigger.of ?? "")) {
    const others = phrases.find(({ suspects }) => suspects.includes(own[0].suspect))?.suspects ?? [];
    const rest = others.filter((s) => !own.some(({ suspect }) => suspect === s));
    const usual = sample(seedOf(settings.seed, "scan", noun), rest, Math.max(TOGETHER, 2 * own.length) - own.length);
    const trial = { prompts: own[0].prompts, suspects: [...own.map(({ suspect }) => suspect), ...usual] };
    const moved = yield* ask(`ask ${noun}`, trial, `asking the U-Net about phrases of "${noun}"`);
    const against = fieldsAgainst(moved, [...moved.keys()].slice(own.length));
    own.forEach(({ suspect }, i) => fields.set(suspect, against[i]));
  }
  const described = scored.map((s): Examined => {
    const field = fields.get(s.suspect);
    return field === undefined ? s : { ...s, field };
  });
  return { examined: [...single, ...described], evaluations };
});

/**
 * Texts against the harmless ones of their own kind and place; where none is known to be, against all of it. Texts that were
 * searched for are held against words.
 */
const standing = (
  suspects: readonly Suspect[],
  responses: readonly Response[],
  prompts: readonly string[],
  about: readonly About[],
): Examined[] =>
  [...Map.groupBy(suspects.keys(), (i) => `${kindOf(suspects[i])} ${suspects[i].trigger.place}`).values()]
    .flatMap((members) => {
      const known = members.flatMap((i, k) => suspects[i].harmless ? [k] : []);
      const usual = known.length > 0 ? known : members.flatMap((i, k) => suspects[i].group === "inverted" ? [] : [k]);
      const own = members.map((i) => responses[i]);
      const scores = standOut(own, usual);
      const fields = fieldsAgainst(own.flatMap(({ change }) => change ?? []), usual);
      return members.map((i, k): Examined => ({
        suspect: suspects[i],
        prompts,
        scores: scores[k],
        field: fields[k],
        ...(own[k].beside === undefined ? {} : { about: about[own[k].beside.noun] }),
      }));
    });
