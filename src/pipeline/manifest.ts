/** What a run was made of, in full: enough to judge it and to do it again. */
import type { Pipeline } from "./link.ts";
import { sha256 } from "./hash.ts";
import { flagsOf } from "./device.ts";
import process from "node:process";
import os from "node:os";
import packageJson from "../../package.json" with { type: "json" };

export const VERSION: string = packageJson.version;

export interface ManifestStep {
  readonly id: string;
  readonly use: string;
  readonly version: number;
  /** Hash of everything that the result depends on. */
  readonly key: string;
  readonly settings: unknown;
  readonly inputs: Readonly<Record<string, string>>;
  readonly files: Readonly<Record<string, string>>;
  /** Time that computing the result took, in this run or in the one that cached it. */
  readonly seconds: number;
  readonly cached: boolean;
}

export interface Manifest {
  /** Marks a result folder as one that sau made and may replace. */
  readonly tool: "sau";
  readonly versions: Readonly<Record<string, string>>;
  readonly platform: { readonly os: string; readonly arch: string; readonly cpu: string; readonly cores: number };
  /** Device kind, and all that the runtime reports about what it found and chose (null when nothing was computed). */
  readonly device: { readonly kind: string; readonly report: unknown };
  readonly pipeline: {
    readonly name: string;
    readonly file: string;
    readonly sha256: string;
    readonly params: Readonly<Record<string, unknown>>;
    readonly overrides: ReadonlyArray<string>;
    readonly text: string;
  };
  readonly steps: ReadonlyArray<ManifestStep>;
  /** When the run began (ISO 8601) and how long it took as a whole. */
  readonly started: string;
  readonly seconds: number;
  /** The command that reproduces the run. */
  readonly command: string;
  /** What there is to say about files of the result folder. */
  readonly notes?: ReadonlyArray<string>;
  /** Files of the result folder and the hashes of their content; filled in when they are written. */
  readonly outputs: Readonly<Record<string, string>>;
}

/** A word as a POSIX shell reads it back. */
export const shellQuote = (word: string): string =>
  /^[A-Za-z0-9_./:=@%+,-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;

/** The command that does this run again, from the same folder. */
export const reproduce = <R>(pipeline: Pipeline<R>, device: string, flags: ReadonlyArray<string> = []): string =>
  [
    "sau run",
    shellQuote(pipeline.file === "" ? "PIPELINE" : pipeline.file),
    ...pipeline.overrides.map((argument) => `--set ${shellQuote(argument)}`),
    ...flags,
    flagsOf(device),
  ].join(" ");

const versions = (): Record<string, string> => {
  const runtime = ["deno", "bun", "node"].find((name) => process.versions[name] !== undefined) ?? "node";
  const { effect, yaml } = packageJson.dependencies;
  return {
    sau: VERSION,
    [runtime]: process.versions[runtime] ?? "",
    effect,
    "onnxruntime-web": packageJson.dependencies["onnxruntime-web"],
    yaml,
  };
};

export const makeManifest = <R>(
  pipeline: Pipeline<R>,
  run: {
    readonly steps: ReadonlyArray<ManifestStep>;
    readonly device: { readonly kind: string; readonly report: unknown };
    readonly started: Date;
    readonly seconds: number;
    readonly flags?: ReadonlyArray<string>;
  },
): Manifest => ({
  tool: "sau",
  versions: versions(),
  platform: {
    os: `${os.platform()} ${os.release()}`,
    arch: os.arch(),
    cpu: os.cpus()[0]?.model.trim() ?? "unknown processor",
    cores: os.availableParallelism(),
  },
  device: run.device,
  pipeline: {
    name: pipeline.name,
    file: pipeline.file,
    sha256: sha256(pipeline.text),
    params: pipeline.params,
    overrides: pipeline.overrides,
    text: pipeline.text,
  },
  steps: run.steps,
  started: run.started.toISOString(),
  seconds: run.seconds,
  command: reproduce(pipeline, run.device.kind, run.flags),
  outputs: {},
});
