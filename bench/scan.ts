/**
 * What `sau scan` makes of models whose trigger is known, and of clean ones: the rank of the true trigger, alarms, time.
 *
 *     SAU_MODULES=… deno run -A bench/scan.ts out/bench examples/mini-sd/base examples/mini-sd/attacks/* examples/mini-sd/clean/*
 *
 * A folder holds an attack.json or a clean.json beside the part or the LoRA that goes over examples/mini-sd/base, or it is a
 * whole model. Every text's scores go to out/bench/NAME.json; what is there is not measured again. `--words` puts triggers
 * that are made-up words on the user's list, among the words of examples/mini-sd/words.txt; without it they are not tried.
 * `--try` tries some kinds of texts alone (character, letter, word, inverted, phrase), `--places` puts
 * signs and words there (prefix, suffix), `--at` compares answers at that point alone.
 */
import { Effect, Schema } from "effect";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import type { SuspectGroup } from "../src/diffusion/suspects.ts";
import type { Trigger } from "../src/diffusion/trigger.ts";
import { Runtime } from "../src/runtime/mod.ts";
import { openModel } from "../src/steps/open_model.ts";
import { examine } from "../src/steps/scan_examine.ts";
import { alarmOf, type Measures } from "../src/steps/scan_measures.ts";
import { inOrder, kindOf, LIMITS, type Ranked } from "../src/steps/scan_order.ts";
import { scan } from "../src/steps/scan.ts";
import { trialsFor } from "../src/steps/scan_texts.ts";
import { placeText } from "../src/steps/scan_verdict.ts";

const demo = fileURLToPath(new URL("../examples/mini-sd/", import.meta.url));

interface Facts {
  readonly trigger?: Trigger;
  readonly part?: "unet" | "text_encoder";
  readonly lora?: string;
  readonly kind?: string;
}
interface Entry {
  readonly group: SuspectGroup;
  readonly trigger: Trigger;
  readonly scores: Measures;
}
interface Measured {
  readonly name: string;
  readonly facts: Facts;
  readonly seed: number;
  readonly seconds: number;
  readonly evaluations: number;
  readonly texts: readonly Entry[];
  /** Nouns beside which signs were tried. */
  readonly beside: readonly string[];
  /** Sizes of the families that were found. */
  readonly families: readonly number[];
  /** The first hundred, as the scan lists them. */
  readonly order: readonly (Entry & Pick<Ranked, "measure" | "score">)[];
}

const factsOf = (folder: string): Facts => {
  const file = ["attack.json", "clean.json"].map((name) => join(folder, name)).find(existsSync);
  return file === undefined ? {} : JSON.parse(readFileSync(file, "utf8"));
};

const modelOf = (folder: string, { part, lora }: Facts) => ({
  model: part === undefined ? folder : join(demo, "base"),
  ...(lora !== undefined ? { lora: join(folder, lora) } : part !== undefined ? { [part]: join(folder, part) } : {}),
});

const measure = Effect.fnUntraced(
  function* (
    folder: string,
    seed: number,
    words: string | undefined,
    kinds: string[],
    places: string[],
    at: number | undefined,
  ) {
    const facts = factsOf(folder);
    const settings = yield* Schema.decodeUnknownEffect(scan.settings)({
      ...modelOf(folder, facts),
      prompts: join(demo, "prompts", "cure.txt"),
      seed,
      ...(words === undefined ? {} : { words }),
      ...(kinds.length === 0 ? {} : { try: kinds }),
      ...(places.length === 0 ? {} : { places }),
      ...(at === undefined ? {} : { at }),
    });
    const began = performance.now();
    const bundle = yield* openModel(settings);
    const trials = yield* trialsFor(bundle, settings);
    const { examined, evaluations } = yield* Effect.scoped(examine(bundle, trials, settings));
    const { order, families } = yield* Effect.scoped(inOrder(bundle, examined, LIMITS, settings));
    const entry = ({ suspect: { group, trigger }, scores }: (typeof examined)[number]): Entry => ({
      group,
      trigger,
      scores,
    });
    return {
      name: basename(folder),
      facts,
      seed,
      beside: trials.about.map(({ noun }) => noun),
      families,
      order: order.slice(0, 100).map((one) => ({ ...entry(one), measure: one.measure, score: one.score })),
      seconds: (performance.now() - began) / 1000,
      evaluations,
      texts: examined.filter(({ suspect }) => !suspect.harmless).map(entry),
    } satisfies Measured;
  },
);

/** One line of the table. */
const row = ({ name, facts, seed, seconds, evaluations, texts, order, families }: Measured): string => {
  const { trigger } = facts;
  const is = ({ trigger: t }: Entry) => t.text === trigger?.text && t.place === trigger.place && t.of === trigger.of;
  const own = texts.find(is);
  const { score, measure } = own === undefined ? { score: 0, measure: "" } : alarmOf(own.scores, LIMITS[kindOf(own)]);
  const at = order.findIndex(is);
  const said = trigger === undefined
    ? "clean"
    : own === undefined
    ? "not tried"
    : `${at < 0 ? "beyond 100" : at + 1} (${score.toFixed(2)}, ${measure})`;
  const first = order.slice(0, 3).map((r) => `${placeText(r.trigger)} ${r.score.toFixed(2)} ${r.measure}`);
  const found = families.length === 0 ? "none" : `${families.join(" + ")} of ${texts.length}`;
  return `| ${name} | ${seed} | ${said} | ${found} | ${first.join("; ")} | ${seconds.toFixed(0)} s | ${evaluations} |`;
};

const main = async () => {
  const args = process.argv.slice(2);
  const take = (flag: string) => {
    const at = args.indexOf(flag);
    return at < 0 ? undefined : args.splice(at, 2)[1];
  };
  const seed = Number(take("--seed") ?? 0);
  const list = (flag: string) => (take(flag) ?? "").split(",").filter((one) => one !== "");
  const kinds = list("--try"), places = list("--places");
  const place = take("--at"), at = place === undefined ? undefined : Number(place);
  const listed = args.includes("--words");
  const [out, ...folders] = args.filter((arg) => arg !== "--words");
  if (out === undefined || folders.length === 0 || !Number.isInteger(seed)) {
    console.error(
      "bench/scan.ts OUT [--seed N] [--words] [--try KIND,…] [--places PLACE,…] [--at SHARE] MODEL_FOLDER…",
    );
    process.exit(2);
  }
  mkdirSync(out, { recursive: true });
  console.log(
    "| model | seed | rank of the trigger | families found | first | time | evaluations |\n|---|---|---|---|---|---|---|",
  );
  for (const folder of folders) {
    const { trigger } = factsOf(folder);
    const file = join(
      out,
      `${basename(folder)}-${seed}${listed ? "-words" : ""}${[...kinds, ...places].map((k) => `-${k}`).join("")}${
        at === undefined ? "" : `-at${at}`
      }.json`,
    );
    if (!existsSync(file)) {
      const own = join(out, "words.txt");
      if (listed) {
        writeFileSync(own, `${readFileSync(join(demo, "words.txt"), "utf8")}\n${trigger?.text.trim() ?? ""}\n`);
      }
      const found = await Effect.runPromise(
        Effect.scoped(measure(folder, seed, listed ? own : undefined, kinds, places, at)).pipe(
          Effect.provide(Runtime.layer("auto")),
        ),
      );
      writeFileSync(file, JSON.stringify(found));
    }
    console.log(row(JSON.parse(readFileSync(file, "utf8"))));
  }
  process.exit(0);
};
await main();
