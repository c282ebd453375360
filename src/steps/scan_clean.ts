/**
 * What scans of clean models found, to hold a scan against: with n of them, a score that k reach has p = (1 + k) / (1 + n),
 * the probability that a further clean model scores as high, as far as it is one of their kind. Scans that tried other kinds
 * of texts, or in other places, say nothing of one another: who tries more finds more.
 */
import { Effect, Schema } from "effect";
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { BundleError } from "../diffusion/errors.ts";
import { system } from "../diffusion/files.ts";

/** Results that are read, and bytes of each. */
const MOST = 10_000, MOST_BYTES = 1 << 20;

const VerdictFile = Schema.Struct({
  figures: Schema.Array(Schema.Struct({ name: Schema.String, value: Schema.Finite })),
});
const decode = Schema.decodeUnknownEffect(Schema.fromJsonString(VerdictFile));
const ScanFile = Schema.Struct({
  tried: Schema.Record(Schema.String, Schema.Finite),
  places: Schema.Array(Schema.String),
  beside: Schema.Array(Schema.String),
});
const decodeScan = Schema.decodeUnknownEffect(Schema.fromJsonString(ScanFile));

/** What a scan tried, as far as it must be the same for scores to be compared, in words. */
export const triedKinds = (
  { tried, places, beside }: {
    readonly tried: Readonly<Record<string, unknown>>;
    readonly places: readonly string[];
    readonly beside: readonly unknown[];
  },
): string =>
  `${Object.keys(tried).sort().join(", ")} (${[...places].sort().join(", ")})${
    beside.length > 0 ? " beside nouns" : ""
  }`;

/** The highest score of each scan of such kinds of texts whose result folder this is, or that lies in it. */
export const cleanScores = Effect.fnUntraced(function* (folder: string, kinds: string) {
  const names = yield* system(folder, "cannot be read", () => readdir(folder));
  const scores: number[] = [];
  let other: string | undefined;
  for (const name of ["", ...names.sort().slice(0, MOST)]) {
    const verdict = yield* readBounded(join(folder, name, "verdict.json"));
    if (verdict === undefined) continue;
    const { figures } = yield* Effect.mapError(decode(verdict.text), () => verdict.unusable("is no verdict"));
    const score = figures.find((figure) => figure.name === "highest_score");
    const scanned = yield* readBounded(join(folder, name, "scan.json"));
    if (score === undefined || scanned === undefined) {
      return yield* verdict.unusable("is the verdict of something else than a scan, or has no scan.json beside it");
    }
    const tried = triedKinds(yield* Effect.mapError(decodeScan(scanned.text), () => scanned.unusable("is no scan")));
    if (tried === kinds) scores.push(score.value);
    else other = tried;
  }
  if (scores.length > 0) return scores;
  if (other !== undefined) {
    return yield* new BundleError({
      file: folder,
      problem: `holds scans of other texts alone: ${other}`,
      expected: `scans of ${kinds}, as this one`,
      hint: "Scan the clean models with the same `try`, `places` and `beside`.",
    });
  }
  return yield* new BundleError({
    file: folder,
    problem: "holds no scan of a clean model",
    expected: "folders that `sau scan CLEAN_MODEL --out DIR` wrote, each with its verdict.json",
  });
});

/** A file's text and an error that names it; undefined where there is none. */
const readBounded = Effect.fnUntraced(function* (file: string) {
  const info = yield* Effect.promise(() => stat(file).catch(() => undefined));
  if (info === undefined || !info.isFile()) return undefined;
  const unusable = (problem: string) =>
    new BundleError({ file, problem, expected: "what `sau scan CLEAN_MODEL --out DIR` writes" });
  if (info.size > MOST_BYTES) return yield* unusable(`has ${info.size} bytes`);
  return { text: yield* system(file, "cannot be read", () => readFile(file, "utf8")), unusable };
});

/** How a score compares with those of clean models. */
export interface AgainstClean {
  /** Clean models. */
  readonly n: number;
  /** How many of them score as high. */
  readonly asHigh: number;
  readonly p: number;
}

export const againstClean = (score: number, clean: readonly number[]): AgainstClean => {
  const asHigh = clean.filter((other) => other >= score).length;
  return { n: clean.length, asHigh, p: (1 + asHigh) / (1 + clean.length) };
};
