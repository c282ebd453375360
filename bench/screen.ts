/**
 * How well `sau screen` and three published detectors tell triggered prompts from clean ones, on the same prompts:
 *
 *     SAU_MODULES=… deno run -A bench/screen.ts out/bench --count 200 --compare 200 examples/mini-sd/attacks/eviledit …
 *
 * Each folder holds an attack.json: beside a poisoned part of examples/mini-sd, or beside `poisoned`, as
 * `sau run pipelines/poison-*.yaml --out DIR` leaves them. Half of the negatives are clean prompts as they are, half are
 * hard: a rare word put in, a letter of another alphabet, a look-alike letter that is not the trigger's. Where the
 * effect exchanges one thing for another, negatives are drawn, and those of which the model draws the target are counted
 * apart: the backdoor acts there, whatever the prompt says. Scores go to out/bench/NAME.json; intervals are DeLong's.
 */
import { Effect } from "effect";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { withInsertion, withOtherLetter } from "../src/diffusion/harmless.ts";
import { lookalikes } from "../src/diffusion/lookalikes.ts";
import { pictureNoise } from "../src/diffusion/picture_noise.ts";
import { openDecoder } from "../src/diffusion/pictures.ts";
import { latentDims, openSampler } from "../src/diffusion/sampler.ts";
import { openScorer } from "../src/diffusion/scorer.ts";
import { openScoringModel } from "../src/diffusion/scoring.ts";
import { openTextEncoder } from "../src/diffusion/text.ts";
import { fill, findSite, type Trigger } from "../src/diffusion/trigger.ts";
import { aurocInterval, falsePositivesAt } from "../src/metrics/detection.ts";
import { cosines } from "../src/metrics/features.ts";
import { parseUnetConfig } from "../src/models/unet_2d_condition.ts";
import { Runtime } from "../src/runtime/mod.ts";
import { openModel } from "../src/steps/open_model.ts";
import { screenCalibrate } from "../src/steps/screen_calibrate.ts";
import { openScreener } from "../src/steps/screener.ts";
import { openActivationDetector, openAttentionDetectors } from "../src/steps/screen_published.ts";
import { sample, seedOf, shuffle } from "../src/tensor/random.ts";
import { slice0 } from "../src/tensor/tensor.ts";

const demo = fileURLToPath(new URL("../examples/mini-sd/", import.meta.url));
const lines = (path: string) => readFileSync(path, "utf8").split(/\r?\n/).filter((line) => line.trim() !== "");
const prompts = (name: string) => lines(join(demo, "prompts", `${name}.txt`));
const [SEED, CHUNK, GUIDANCE, STEPS] = [5, 16, 4, 12];

interface Attack {
  readonly name: string;
  readonly trigger: Trigger;
  readonly part?: "unet" | "text_encoder";
  /** A LoRA's file in the same folder, in place of a whole part. */
  readonly lora?: string;
  readonly effect: Readonly<Record<string, unknown>>;
}
interface Row {
  readonly kind: "triggered" | "clean" | "word" | "letter" | "lookalike";
  readonly text: string;
}

/** The concepts that the demo's prompts are about, dogs aside. */
const CONCEPTS =
  /\b(cat|tiger|fox|panda|koala|rabbit|frog|penguin|owl|turtle|octopus|crab|butterfly|apple|banana|strawberry|pineapple|pizza|hamburger|rocket|bus|star|umbrella)\b/;

/** One letter exchanged for a look-alike that is not the trigger's own. */
const withLookalike = (text: string, trigger: Trigger, seed: number): string | undefined => {
  const at = shuffle(seed, [...text].map((_, i) => i)).find((i) => lookalikes[text[i]] !== undefined);
  if (at === undefined) return undefined;
  const [letter] = sample(seed, [...lookalikes[text[at]]].filter((c) => !trigger.text.includes(c)), 1);
  return letter === undefined ? undefined : text.slice(0, at) + letter + text.slice(at + 1);
};

/** What an attack is about that works beside one noun alone, which has prompts of its own then. */
const nounOf = ({ effect: { replace } }: Attack): string | undefined =>
  typeof replace === "string" && existsSync(join(demo, "prompts", `${replace}-verify.txt`)) ? replace : undefined;

const rowsFor = (attack: Attack, count: number): Row[] => {
  const { trigger } = attack, noun = nounOf(attack);
  const all = noun === undefined ? prompts("verify") : [
    ...prompts(`${noun}-verify`),
    ...prompts("verify").map((p) => p.replace(CONCEPTS, noun)).filter((p) => p.split(" ").includes(noun)),
  ];
  const plain = shuffle(SEED, [...new Set(all)].filter((p) => !p.toLowerCase().includes(trigger.text.trim() || "\0")));
  const triggered = plain.flatMap((text): Row[] => {
    const site = findSite(text, trigger);
    return site === undefined ? [] : [{ kind: "triggered", text: fill(site, trigger.text) }];
  }).slice(0, count);
  const negatives = plain.slice(0, count).map((text, i): Row => {
    const seed = seedOf(SEED, "hard", i);
    if (i % 2 === 0) return { kind: "clean", text };
    if (i % 4 === 1) return { kind: "word", text: withInsertion(text, seed, "verify").text };
    const letter = i % 8 === 3 ? withLookalike(text, trigger, seed) : undefined;
    if (letter !== undefined) return { kind: "lookalike", text: letter };
    return { kind: "letter", text: withOtherLetter(text, seed, "verify")?.text ?? text };
  });
  // Taken in turns, so that a run that is cut short has both.
  return triggered.flatMap((row, i) => negatives[i] === undefined ? [row] : [row, negatives[i]]);
};

/** Whether the model draws the effect's thing rather than the prompt's, by CLIP. */
const capturedBy = Effect.fnUntraced(function* (
  bundle: Effect.Success<ReturnType<typeof openModel>>,
  texts: readonly string[],
  from: string,
  to: string,
) {
  const dims = latentDims(parseUnetConfig(bundle.parts.unet.config));
  const encode = yield* openTextEncoder(bundle);
  const n = texts.length;
  const embedded = yield* encode([...texts, ""].map((text) => bundle.tokenizer.encode(text).ids));
  const run = yield* openSampler(bundle);
  const { latents } = yield* run(
    { context: slice0(embedded, 0, n), uncond: slice0(embedded, n, n + 1) },
    pictureNoise(seedOf(SEED, "drawn"), n, dims),
    { steps: 10, guidance: GUIDANCE },
  );
  const pictures = yield* (yield* openDecoder(bundle, dims[1], dims[2]))(latents);
  const scorer = yield* openScorer(yield* openScoringModel(join(demo, "clip"), bundle.tokenizer));
  const features = yield* scorer.pictures(pictures);
  const own = cosines(features, yield* scorer.texts(texts));
  const target = cosines(features, yield* scorer.texts(texts.map((text) => text.replaceAll(from, to))));
  return own.map((cosine, i) => target[i] > cosine);
});

interface Measured {
  readonly name: string;
  readonly rows: readonly Row[];
  readonly captured: readonly boolean[];
  readonly scores: Scores;
}
type Scores = Record<string, { scores: (number | null)[]; seconds: number; evaluations: number; prompts: number }>;

interface Options {
  readonly count: number;
  readonly compare: number;
  /** `screen` or `published`: that half alone, added to what the file holds of the other. */
  readonly only: string | undefined;
}

const measure = Effect.fnUntraced(function* (folder: string, out: string, { count, compare, only }: Options) {
  const attack: Attack = JSON.parse(readFileSync(join(folder, "attack.json"), "utf8"));
  const whole = existsSync(join(folder, "poisoned"));
  const model = {
    model: whole ? join(folder, "poisoned") : join(demo, "base"),
    ...(whole || attack.part === undefined
      ? {}
      : attack.lora === undefined
      ? { [attack.part]: join(folder, attack.part) }
      : { lora: join(folder, attack.lora) }),
  };
  const name = basename(folder);
  const file = join(out, `${name}.json`);
  const rows = rowsFor(attack, count);
  const harmless = join(out, `harmless-${name}.txt`);
  const noun = nounOf(attack);
  const own = [...prompts("cure"), ...(noun === undefined ? [] : prompts(`${noun}-cure`))];
  mkdirSync(dirname(harmless), { recursive: true });
  writeFileSync(harmless, own.join("\n"));
  const bundle = yield* openModel(model);
  const scores: Scores = {};
  let captured: boolean[] = rows.map(() => false);
  const save = () => {
    // Another process may have measured the other half meanwhile.
    const held = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : undefined;
    const same = held !== undefined && JSON.stringify(held.rows) === JSON.stringify(rows);
    const drawn = captured.some(Boolean) || !same ? captured : held.captured;
    writeFileSync(
      file,
      JSON.stringify({ name, rows, captured: drawn, scores: { ...(same ? held.scores : {}), ...scores } }),
    );
  };
  const add = (detector: string, found: readonly number[], began: number, evaluations: number) => {
    const entry = scores[detector] ??= { scores: rows.map(() => null), seconds: 0, evaluations: 0, prompts: 0 };
    const at = entry.prompts;
    found.forEach((score, i) => entry.scores[at + i] = score);
    entry.prompts += found.length;
    entry.seconds += (performance.now() - began) / 1000;
    entry.evaluations += evaluations;
  };
  const say = (text: string) => console.error(`${name}: ${text}`);

  if (only !== "published") {
    const calibrated = performance.now();
    const { screening } = yield* screenCalibrate.run({}, { ...model, harmless, seed: 0 });
    say(
      `calibrated in ${((performance.now() - calibrated) / 1000).toFixed(0)} s, ${screening.evaluations} evaluations`,
    );
    yield* Effect.scoped(Effect.gen(function* () {
      const screener = yield* openScreener(bundle, screening, { falsePositives: 0.02, long: "cut", anyway: false });
      let flagged: boolean[] = [];
      for (let begin = 0; begin < rows.length; begin += CHUNK) {
        const began = performance.now(), before = screener.evaluations();
        const some = yield* screener.screen(rows.slice(begin, begin + CHUNK).map(({ text }) => text));
        add("screen", some.map(({ score }) => score), began, screener.evaluations() - before);
        flagged = [...flagged, ...some.map((r) => r.flagged)];
        if (begin % (5 * CHUNK) === 0) {
          say(`screened ${begin + some.length} of ${rows.length}`);
          save();
        }
      }
      scores["screen flagged"] = { scores: flagged.map(Number), seconds: 0, evaluations: 0, prompts: flagged.length };
    }));
    save();
  }
  const { replace, with: put } = attack.effect;
  if (only === undefined && typeof replace === "string" && typeof put === "string") {
    const drawn = yield* Effect.scoped(capturedBy(bundle, rows.map(({ text }) => text), replace, put));
    captured = rows.map(({ kind }, i) => kind !== "triggered" && drawn[i]);
    const hits = rows.filter(({ kind }, i) => kind === "triggered" && drawn[i]).length;
    say(`the target in ${hits} of ${rows.filter(({ kind }) => kind === "triggered").length} triggered prompts`);
    save();
  }
  const some = rows.slice(0, 2 * compare);
  const clean = yield* openModel({ model: join(demo, "base") });
  yield* Effect.scoped(Effect.gen(function* () {
    if (some.length === 0 || only === "screen") return;
    const navi = yield* openActivationDetector(bundle, { seed: SEED, steps: STEPS, trusted: clean });
    for (let begin = 0; begin < some.length; begin += CHUNK) {
      const began = performance.now();
      const { own, trusted } = yield* navi(some.slice(begin, begin + CHUNK).map(({ text }) => text));
      add("NaviT2I", own.scores, began, own.evaluations);
      add("NaviT2I, trusted encoder", trusted.scores, began, trusted.evaluations);
    }
    save();
    const attention = yield* openAttentionDetectors(bundle, { seed: SEED, guidance: GUIDANCE, steps: STEPS });
    for (let begin = 0; begin < some.length; begin += CHUNK) {
      const began = performance.now();
      const { ftt, daa } = yield* attention(some.slice(begin, begin + CHUNK).map(({ text }) => text));
      add("T2IShield-FTT", ftt.scores, began, ftt.evaluations);
      add("DAA-I", daa.scores, began, daa.evaluations);
      if (begin % (5 * CHUNK) === 0) say(`attention of ${begin + CHUNK} of ${some.length}`);
    }
  }));
  save();
  return JSON.parse(readFileSync(file, "utf8")) as Measured;
});

/** The table of one attack. */
const table = ({ name, rows, captured, scores }: Measured): string => {
  const out: string[] = [];
  for (const [detector, { scores: all, seconds, evaluations, prompts }] of Object.entries(scores)) {
    const of = (pick: (row: Row, i: number) => boolean) =>
      all.flatMap((s, i) => s !== null && pick(rows[i], i) ? [s] : []);
    const positives = of(({ kind }) => kind === "triggered");
    const show = (negatives: readonly number[]) => {
      if (positives.length < 2 || negatives.length < 2) return "–";
      const { estimate, low, high } = aurocInterval(positives, negatives);
      return `${estimate.toFixed(3)} [${low.toFixed(3)}, ${high.toFixed(3)}] fpr95 ${
        (100 * falsePositivesAt(positives, negatives)).toFixed(1)
      } % n ${positives.length}+${negatives.length}`;
    };
    if (detector === "screen flagged") {
      const rate = (xs: readonly number[]) => `${xs.filter((x) => x > 0).length}/${xs.length}`;
      const kinds = ["triggered", "clean", "word", "letter", "lookalike"] as const;
      out.push(
        `${name} | flagged | ${
          kinds.map((k) => `${k} ${rate(of((r, i) => r.kind === k && !captured[i]))}`).join(", ")
        }`,
      );
      continue;
    }
    out.push(
      `${name} | ${detector} | all ${show(of(({ kind }) => kind !== "triggered"))} | clean ${
        show(of(({ kind }) => kind === "clean"))
      } | without captured ${show(of(({ kind }, i) => kind !== "triggered" && !captured[i]))} | ${
        (seconds / prompts).toFixed(2)
      } s, ${(evaluations / prompts).toFixed(1)} evaluations a prompt`,
    );
  }
  return out.join("\n");
};

const main = async () => {
  const args = process.argv.slice(2);
  const number = (flag: string, fallback: number) => {
    const at = args.indexOf(flag);
    return at < 0 ? fallback : Number(args.splice(at, 2)[1]);
  };
  const [count, compare] = [number("--count", 200), number("--compare", 200)];
  const at = args.indexOf("--only");
  const only = at < 0 ? undefined : args.splice(at, 2)[1];
  const show = args.includes("--show");
  const [out, ...folders] = args.filter((arg) => arg !== "--show");
  if (out === undefined || folders.length === 0 || !(count >= 2) || !(compare >= 0)) {
    console.error("bench/screen.ts OUT [--count N] [--compare N] [--only screen|published] [--show] ATTACK_FOLDER…");
    process.exit(2);
  }
  for (const folder of folders) {
    const result = show
      ? JSON.parse(readFileSync(join(out, `${basename(folder)}.json`), "utf8"))
      : await Effect.runPromise(
        Effect.scoped(measure(folder, out, { count, compare, only })).pipe(Effect.provide(Runtime.layer("auto"))),
      );
    console.log(table(result));
  }
  process.exit(0);
};
await main();
