/** Two runs side by side, from their result folders: what went in differently, and what came out. */
import { Effect, Schema } from "effect";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { explain, Figure, OutputError } from "../steps/errors.ts";
import { changes } from "./plan.ts";

/** What is read of a manifest. */
const Read = Schema.Struct({
  tool: Schema.Literal("sau"),
  versions: Schema.Record(Schema.String, Schema.String),
  device: Schema.Struct({ kind: Schema.String }),
  pipeline: Schema.Struct({ name: Schema.String, params: Schema.Record(Schema.String, Schema.Unknown) }),
  steps: Schema.Array(Schema.Struct({
    id: Schema.String,
    use: Schema.String,
    version: Schema.Number,
    settings: Schema.Unknown,
    files: Schema.Record(Schema.String, Schema.String),
    seconds: Schema.Number,
  })),
});

const Judged = Schema.Struct({ passed: Schema.Boolean, figures: Schema.Array(Figure) });

/** A result folder as far as it is compared. */
export interface RunFolder {
  readonly manifest: typeof Read.Type;
  /** Figures of its verdicts, by `FILE.FIGURE` (`verdict.clip_drop`). */
  readonly figures: Readonly<Record<string, Figure>>;
}

/** One figure in both runs; undefined where a run has none of that name. */
export interface FigurePair {
  readonly name: string;
  readonly before: Figure | undefined;
  readonly after: Figure | undefined;
}

export interface Difference {
  /** What differs in what went in, as `step cure: setting strategy: "auto" → "distill"`. */
  readonly settings: ReadonlyArray<string>;
  readonly figures: ReadonlyArray<FigurePair>;
}

/** Reads a result folder of `sau run --out`. */
export const readRun = (dir: string): Effect.Effect<RunFolder, OutputError> =>
  Effect.tryPromise({
    try: async () => {
      const manifest = Schema.decodeUnknownSync(Read)(JSON.parse(await readFile(join(dir, "manifest.json"), "utf8")));
      const figures: Array<[string, Figure]> = [];
      for (const file of (await readdir(dir)).filter((name) => name.endsWith(".json")).sort()) {
        const value: unknown = JSON.parse(await readFile(join(dir, file), "utf8"));
        if (!Schema.is(Judged)(value)) continue;
        for (const figure of value.figures) figures.push([`${file.slice(0, -".json".length)}.${figure.name}`, figure]);
      }
      return { manifest, figures: Object.fromEntries(figures) };
    },
    catch: (error) =>
      new OutputError({ path: dir, message: `${dir} is no result folder of sau run --out: ${explain(error)}` }),
  });

/** Compares two runs. Times are left out: they differ always. */
export const difference = (before: RunFolder, after: RunFolder): Difference => {
  const [a, b] = [before.manifest, after.manifest];
  const settings = [
    ...changes(a.versions, b.versions).map((change) => `version ${change}`),
    ...(a.device.kind === b.device.kind ? [] : [`device ${a.device.kind} → ${b.device.kind}`]),
    ...changes(a.pipeline.params, b.pipeline.params).map((change) => `param ${change}`),
  ];
  for (const id of new Set([...a.steps, ...b.steps].map((step) => step.id))) {
    const [old, now] = [a, b].map(({ steps }) => steps.find((step) => step.id === id));
    if (old === undefined || now === undefined) {
      settings.push(`step ${id}: ${old === undefined ? "only in the second run" : "only in the first run"}`);
      continue;
    }
    const found = [
      ...(old.use === now.use ? [] : [`use: ${old.use} → ${now.use}`]),
      ...(old.version === now.version ? [] : [`version ${old.version} → ${now.version}`]),
      ...changes(old.settings, now.settings).map((change) => `setting ${change}`),
      ...Object.keys(now.files).filter((file) => file in old.files && old.files[file] !== now.files[file])
        .map((file) => `${file} has changed`),
    ];
    settings.push(...found.map((text) => `step ${id}: ${text}`));
  }
  const names = [...new Set([...Object.keys(before.figures), ...Object.keys(after.figures)])];
  return {
    settings,
    figures: names.map((name) => ({ name, before: before.figures[name], after: after.figures[name] })),
  };
};
