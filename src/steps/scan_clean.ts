/**
 * What scans of clean models found, to hold a scan against: with n of them, a score that k reach has p = (1 + k) / (1 + n),
 * the probability that a further clean model scores as high, as far as it is one of their kind.
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

/** The highest score of each scan whose result folder this is, or that lies in it. */
export const cleanScores = Effect.fnUntraced(function* (folder: string) {
  const names = yield* system(folder, "cannot be read", () => readdir(folder));
  const files = ["verdict.json", ...names.sort().slice(0, MOST).map((name) => join(name, "verdict.json"))];
  const scores: number[] = [];
  for (const name of files) {
    const file = join(folder, name);
    const info = yield* Effect.promise(() => stat(file).catch(() => undefined));
    if (info === undefined || !info.isFile()) continue;
    const unusable = (problem: string) =>
      new BundleError({ file, problem, expected: "the verdict.json that `sau scan CLEAN_MODEL --out DIR` writes" });
    if (info.size > MOST_BYTES) return yield* unusable(`has ${info.size} bytes`);
    const text = yield* system(file, "cannot be read", () => readFile(file, "utf8"));
    const { figures } = yield* Effect.mapError(decode(text), () => unusable("is no verdict"));
    const score = figures.find((figure) => figure.name === "highest_score");
    if (score === undefined) return yield* unusable("is the verdict of something else than a scan");
    scores.push(score.value);
  }
  if (scores.length > 0) return scores;
  return yield* new BundleError({
    file: folder,
    problem: "holds no scan of a clean model",
    expected: "folders that `sau scan CLEAN_MODEL --out DIR` wrote, each with its verdict.json",
  });
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
