/**
 * What is in a checkpoint, what is odd about it, and what it moved against another, before anything is computed with it.
 * Reports where openBundle refuses: only what cannot be read at all is an error. Nothing is written, no code is run, no
 * pickle opened; one stretch of one tensor is in memory at a time, in a comparison one tensor's change.
 */
import { Effect } from "effect";
import { createHash } from "node:crypto";
import { stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import { BundleError } from "./errors.ts";
import { type Folder, openFolder, subFolder } from "./files.ts";
import { compareParts, type Side } from "./inspect_compare.ts";
import { isHashed, type Listed, listFolder, oddFiles, useOf } from "./inspect_files.ts";
import { bySeverity, counted, finding } from "./inspect_finding.ts";
import { familyOf, oddKeys, oddPairs, partFacts } from "./inspect_fit.ts";
import { oddMetadata, oddTensors } from "./inspect_odd.ts";
import { type Found, type Json, jsonIn, partsIn, partsOfFile } from "./inspect_parts.ts";
import { lookAtTokenizer, type RawTokenizer, tokenizerDifferences } from "./inspect_tokenizer.ts";
import { hashOf, openWeights, scanFile, type Scanned, type WeightsFile } from "./inspect_weights.ts";
import {
  type Comparison,
  type Description,
  type Fact,
  type FileFacts,
  type Finding,
  FORMAT,
  type Inspection,
  type PartFacts,
  type Tally,
  type TensorFacts,
} from "./inspection.ts";
import { tokenText } from "./bpe.ts";
import { stockVocabulary } from "./stock_tokenizer.ts";

export interface InspectProgress {
  readonly what: "reading" | "comparing";
  /** Of which model. */
  readonly path: string;
  /** Of `total`, in bytes read or elements compared. */
  readonly done: number;
  readonly total: number;
}

export interface InspectOptions {
  readonly onProgress?: (progress: InspectProgress) => Effect.Effect<void>;
  /** The tokenizer that the model should have: differences from it are a finding. CLIP's own, where its vocabulary is. */
  readonly stock?: RawTokenizer;
}

/** Tokens of CLIP. A text encoder with as many is one of Stable Diffusion's. */
const CLIP_TOKENS = 49408;

const clipTokenizer = Effect.map(stockVocabulary, ({ vocab, merges }): RawTokenizer => ({
  vocab,
  merges: merges.map((pair) => pair.join(" ")),
  added: new Map(),
  normalizer: undefined,
  splitter: undefined,
}));

/** Values of metadata longer than this are cut. */
const LONGEST_NOTE = 2000;
/** Notes in metadata beyond this many are left out. */
const MOST_NOTES = 500;
/** A file for a hash: larger ones that are not weights are no part of a checkpoint. */
const LARGEST_HASHED = 64 << 20;

/** A checkpoint, and what a comparison needs beside its description. */
interface Opened {
  readonly description: Description;
  readonly sides: ReadonlyMap<string, Side>;
  readonly configs: ReadonlyMap<string, Json>;
  readonly tokenizer: RawTokenizer | undefined;
}

const tallyBy = (tensors: readonly TensorFacts[], bytes: (t: TensorFacts) => number, by: (t: TensorFacts) => string) =>
  Object.fromEntries(
    [...Map.groupBy(tensors, by)].sort(([a], [b]) => a < b ? -1 : 1).map(([name, group]): [string, Tally] => [name, {
      tensors: group.length,
      parameters: group.reduce((n, t) => n + t.parameters, 0),
      bytes: group.reduce((n, t) => n + bytes(t), 0),
    }]),
  );

/** One hash for the same weights, however they are spread over files. */
const hashOfTensors = (tensors: readonly TensorFacts[]): string => {
  const lines = tensors.map((t) => `${t.key} ${t.dtype} ${t.dims.join("x")} ${t.sha256}\n`).sort();
  return createHash("sha256").update(lines.join("")).digest("hex");
};

const describePart = (part: Found, scanned: ReadonlyMap<string, Scanned>): PartFacts => {
  const entries = new Map(part.files.flatMap((f) => [...f.header.entries]));
  const bytes = (t: TensorFacts) => {
    const entry = entries.get(t.key);
    return entry === undefined ? 0 : entry.end - entry.begin;
  };
  const tensors = part.files.flatMap((f) => scanned.get(f.name)?.tensors ?? []).filter((t) =>
    part.owns?.(t.key) ?? true
  );
  const guessed = partsOfFile;
  return {
    name: part.name,
    class: part.class ?? part.files.flatMap((f) => guessed(f).map((p) => p.class))[0] ?? "not said",
    facts: partFacts(part),
    parameters: tensors.reduce((n, t) => n + t.parameters, 0),
    bytes: tensors.reduce((n, t) => n + bytes(t), 0),
    dtypes: tallyBy(tensors, bytes, (t) => t.dtype),
    kinds: tallyBy(tensors, bytes, (t) => t.kind),
    files: part.files.map((f) => f.name),
    sha256: hashOfTensors(tensors),
    tensors,
  };
};

const notesOf = (file: WeightsFile): Record<string, string> =>
  Object.fromEntries(
    Object.entries(file.header.metadata).slice(0, MOST_NOTES).map(([key, value]) => [
      key.slice(0, LONGEST_NOTE),
      value.length > LONGEST_NOTE ? `${value.slice(0, LONGEST_NOTE)}… (${value.length} characters)` : value,
    ]),
  );

const describeFile = Effect.fnUntraced(function* (
  root: string,
  file: Listed,
  weights: ReadonlyMap<string, WeightsFile>,
  scanned: ReadonlyMap<string, Scanned>,
) {
  const use = useOf(file, new Set(weights.keys()));
  const of = weights.get(file.path);
  const small = isHashed(use) && file.bytes <= LARGEST_HASHED;
  const sha256 = scanned.get(file.path)?.sha256 ??
    (small && of === undefined ? yield* hashOf(join(root, file.path)) : null);
  const metadata = of === undefined ? {} : notesOf(of);
  const facts: FileFacts = {
    path: file.path,
    bytes: file.bytes,
    sha256,
    use,
    ...(Object.keys(metadata).length === 0 ? {} : { metadata }),
  };
  return facts;
});

/** Reads all tensors of some files, once each. */
const scanAll = Effect.fnUntraced(function* (path: string, files: readonly WeightsFile[], options: InspectOptions) {
  const total = files.reduce((n, f) => n + f.bytes, 0);
  let done = 0;
  const scanned = new Map<string, Scanned>();
  for (const file of files) {
    scanned.set(
      file.name,
      yield* scanFile(file, (bytes) => {
        done += bytes;
        return options.onProgress?.({ what: "reading", path, done, total }) ?? Effect.void;
      }),
    );
  }
  return scanned;
});

const OWN_LIBRARIES = new Set(["diffusers", "transformers", "stable_diffusion", "onnxruntime", "optimum"]);

const textOf = (value: unknown): string | undefined => typeof value === "string" ? value : undefined;

/** Code that a config asks a loader to run. */
const oddConfigs = (index: Json | undefined, configs: ReadonlyMap<string, Json>): Finding[] => {
  const asks: string[] = [];
  for (const [path, config] of configs) {
    for (const key of ["auto_map", "custom_pipelines", "custom_code", "trust_remote_code"]) {
      if (config[key] !== undefined && config[key] !== null && config[key] !== false) asks.push(`${path}: ${key}`);
    }
  }
  for (const [key, value] of Object.entries(index ?? {})) {
    const library = Array.isArray(value) ? textOf(value[0]) : undefined;
    if (key === "_class_name" && Array.isArray(value)) asks.push(`model_index.json: ${key}`);
    else if (library !== undefined && !OWN_LIBRARIES.has(library)) {
      asks.push(`model_index.json: ${key} from ${library}`);
    }
  }
  const out: Finding[] = asks.length === 0 ? [] : [finding("custom-code", "warn", asks, {
    what: `${counted(asks.length, "place")} in the configs that ask a loader to run code of the checkpoint's own`,
    why: "With trust_remote_code or a custom pipeline, loading the model runs that code as you.",
    todo: "Load it with trust_remote_code=False; take the entry out if the model works without.",
  })];
  const checker = index?.safety_checker;
  const off = index !== undefined &&
    (checker === undefined || checker === null || (Array.isArray(checker) && checker[0] === null));
  if (off) {
    const asked = index.requires_safety_checker === true;
    out.push(finding("no-safety-checker", "info", ["model_index.json: safety_checker"], {
      what: asked
        ? "requires_safety_checker is true, but there is no safety checker"
        : "there is no safety checker, and none is asked for",
      why: "Pictures are handed out unchecked.",
      todo: "Check pictures elsewhere where others will see them.",
    }));
  }
  return out;
};

const schedulerFacts = (config: Json | undefined): Fact[] => {
  const facts: ReadonlyArray<readonly [string, string]> = [
    ["_class_name", "scheduler"],
    ["prediction_type", "prediction"],
    ["beta_schedule", "noise schedule"],
    ["num_train_timesteps", "training timesteps"],
    ["rescale_betas_zero_snr", "zero terminal SNR"],
  ];
  return facts.flatMap(([key, name]) => config?.[key] === undefined ? [] : [{ name, value: String(config[key]) }]);
};

const sum = (parts: readonly PartFacts[], of: (p: PartFacts) => number): number => parts.reduce((n, p) => n + of(p), 0);

const titleOf = (kind: string | undefined, found: readonly Found[], parts: readonly PartFacts[]): string => {
  const family = familyOf(found);
  if (kind !== undefined) return family === undefined ? kind : `${family}, as ${kind}`;
  const names = parts.map((p) => p.name);
  if (parts.length === 1) return `${parts[0].name}: ${parts[0].class}${family === undefined ? "" : `, ${family}`}`;
  return `${family ?? "tensors"}: ${names.join(", ")}`;
};

/** The folder of a tokenizer that lies beside a text encoder: the encoder's own words. */
const tokenizerFolder = Effect.fnUntraced(function* (root: Folder, listed: readonly Listed[]) {
  const has = (prefix: string) =>
    listed.some(({ path }) => path === `${prefix}tokenizer.json` || path === `${prefix}vocab.json`);
  if (has("tokenizer/")) return [yield* subFolder(root, "tokenizer"), "tokenizer"] as const;
  return has("") ? [root, basename(root.path)] as const : [undefined, ""] as const;
});

const describeFolder = Effect.fnUntraced(function* (path: string, options: InspectOptions) {
  const root = yield* openFolder(path, "checkpoint");
  const { files: listed, complete } = yield* listFolder(root);
  const findings: Finding[] = [];
  const has = (name: string) => listed.some((f) => f.kind === "file" && f.path === name);
  const index = has("model_index.json")
    ? yield* jsonIn(root, "model_index.json", "model_index.json", findings)
    : undefined;
  const isModel = has("model_index.json");
  const found = yield* partsIn(root, listed, isModel, findings);
  const tokenizerAt = yield* tokenizerFolder(root, listed);
  if (found.length === 0 && index === undefined && tokenizerAt[0] === undefined) {
    return yield* new BundleError({
      file: path,
      problem: `holds nothing that can be inspected (${counted(listed.length, "file")})`,
      expected: "a diffusers folder, the folder of one of its parts, or a .safetensors file",
      ...(listed.some((f) => useOf(f, new Set()) === "pickle")
        ? { hint: "It holds pickled weights; these are never opened here. Convert them to safetensors in a sandbox." }
        : {}),
    });
  }
  const weights = new Map(found.flatMap((p) => p.files).map((f) => [f.name, f]));
  const scanned = yield* scanAll(path, [...weights.values()], options);
  const parts = found.map((p) => describePart(p, scanned));
  const files: FileFacts[] = [];
  for (const file of listed) files.push(yield* describeFile(root.path, file, weights, scanned));
  const configs = new Map(
    found.flatMap((p) =>
      p.config === undefined ? [] : [[`${p.folder === "" ? "" : `${p.folder}/`}config.json`, p.config]]
    ),
  );
  if (index !== undefined) configs.set("model_index.json", index);
  const scheduler = has("scheduler/scheduler_config.json") ? yield* subFolder(root, "scheduler") : undefined;
  const schedule = scheduler === undefined
    ? undefined
    : yield* jsonIn(scheduler, "scheduler_config.json", "scheduler/scheduler_config.json", findings);
  if (schedule !== undefined) configs.set("scheduler/scheduler_config.json", schedule);
  const [folder, name] = tokenizerAt;
  const { max_position_embeddings: positions, vocab_size: words } = found.find((p) =>
    p.name === "text_encoder"
  )?.config ?? {};
  const stock = options.stock ?? (words === CLIP_TOKENS ? yield* clipTokenizer : undefined);
  const looked = folder === undefined
    ? { raw: undefined, facts: null, findings: [] }
    : yield* lookAtTokenizer(folder, name, typeof positions === "number" ? positions : undefined, stock);
  if (isModel) findings.push(...missingParts(index, found, listed));
  const dataHashes = new Map([...scanned].map(([file, { dataSha256 }]) => [file, dataSha256]));
  findings.push(
    ...oddFiles(listed, new Set(weights.keys()), complete),
    ...oddConfigs(index, configs),
    ...found.flatMap(oddKeys),
    ...oddPairs(found, looked.facts?.tokens),
    ...oddTensors(parts),
    ...looked.findings,
    ...oddMetadata(files, dataHashes),
  );
  const kind = index === undefined
    ? undefined
    : Array.isArray(index._class_name)
    ? "custom pipeline"
    : textOf(index._class_name);
  const description: Description = {
    path,
    is: isModel ? "model" : "parts",
    title: titleOf(kind, found, parts),
    facts: schedulerFacts(schedule),
    parameters: sum(parts, (p) => p.parameters),
    bytes: sum(parts, (p) => p.bytes),
    parts,
    tokenizer: looked.facts,
    files,
    findings: bySeverity(findings),
  };
  return { description, sides: sidesOf(parts, found), configs, tokenizer: looked.raw } satisfies Opened;
});

/** Parts that model_index.json names and the folder lacks. */
const missingParts = (index: Json | undefined, found: readonly Found[], listed: readonly Listed[]): Finding[] => {
  const lost = Object.entries(index ?? {}).filter(([key, value]) =>
    !key.startsWith("_") && Array.isArray(value) && typeof value[0] === "string" &&
    !listed.some(({ path }) => path.startsWith(`${key}/`) || (key === "vae" && path.startsWith("vae_decoder/")))
  ).map(([key]) => key);
  const empty = found.filter((p) => p.config !== undefined && p.files.length === 0).map((p) => p.name);
  const out: Finding[] = [];
  if (lost.length > 0) {
    out.push(finding("missing-part", "warn", lost, {
      what: `${counted(lost.length, "part")} that model_index.json names are not in the folder`,
      why: "The model cannot be loaded as it is; a loader may take the part from elsewhere.",
      todo: "Fetch the folder again.",
    }));
  }
  if (empty.length > 0) {
    out.push(finding("no-weights", "warn", empty, {
      what: `${counted(empty.length, "part")} without safetensors weights`,
      why: "Loaders fall back to pickled weights where there are some.",
      todo: "Fetch the part as safetensors.",
    }));
  }
  return out;
};

const sidesOf = (parts: readonly PartFacts[], found: readonly Found[]): ReadonlyMap<string, Side> =>
  new Map(parts.map((facts, i) => [facts.name, { facts, files: found[i].files }]));

const describeLone = Effect.fnUntraced(function* (path: string, options: InspectOptions) {
  if (!path.endsWith(".safetensors")) {
    return yield* new BundleError({
      file: path,
      problem: "is not a .safetensors file",
      expected: "a .safetensors file, or a folder",
      ...(/\.(ckpt|pt|pth|bin|pkl)$/i.test(path)
        ? {
          hint:
            "Pickled weights can run code when they are opened, so they are not read here. Convert them in a sandbox.",
        }
        : {}),
    });
  }
  const folder = yield* openFolder(dirname(resolve(path)), "folder of the file");
  const file = yield* openWeights(resolve(path), basename(path));
  const found = partsOfFile(file);
  const scanned = yield* scanAll(path, [file], options);
  const parts = found.map((p) => describePart(p, scanned));
  const listed: Listed = { path: basename(path), bytes: file.bytes, kind: "file" };
  const weights = new Map([[file.name, file]]);
  const files = [yield* describeFile(folder.path, listed, weights, scanned)];
  const findings = [
    ...oddTensors(parts),
    ...oddMetadata(files, new Map([...scanned].map(([name, s]) => [name, s.dataSha256]))),
  ];
  const description: Description = {
    path,
    is: "file",
    title: titleOf(undefined, found, parts),
    facts: [],
    parameters: sum(parts, (p) => p.parameters),
    bytes: sum(parts, (p) => p.bytes),
    parts,
    tokenizer: null,
    files,
    findings: bySeverity(findings),
  };
  return { description, sides: sidesOf(parts, found), configs: new Map(), tokenizer: undefined } satisfies Opened;
});

const open = Effect.fnUntraced(
  function* (path: string, options: InspectOptions): Effect.fn.Return<Opened, BundleError> {
    const info = yield* Effect.promise(() => stat(path).catch(() => undefined));
    return yield* (info?.isFile() === true ? describeLone(path, options) : describeFolder(path, options));
  },
);

/** Keys of configs that say who saved a file, and nothing about the model. */
const SAVED_BY = new Set(["_diffusers_version", "transformers_version", "_name_or_path", "torch_dtype", "dtype"]);

const settingsApart = (a: Opened, b: Opened): Comparison["settings"] => {
  const out: Comparison["settings"][number][] = [];
  const show = (value: unknown) => value === undefined ? null : JSON.stringify(value).slice(0, 300);
  for (const [path, first] of a.configs) {
    const second = b.configs.get(path);
    if (second === undefined) continue;
    for (const key of new Set([...Object.keys(first), ...Object.keys(second)])) {
      const [x, y] = [show(first[key]), show(second[key])];
      if (!SAVED_BY.has(key) && x !== y) out.push({ where: `${path}: ${key}`, first: x, second: y });
    }
  }
  if (a.tokenizer !== undefined && b.tokenizer !== undefined) {
    for (const { where, ...both } of tokenizerDifferences(a.tokenizer, b.tokenizer)) {
      out.push({ where: `tokenizer: ${where}`, ...both });
    }
  }
  return out;
};

const compare = Effect.fnUntraced(
  function* (a: Opened, b: Opened, options: InspectOptions): Effect.fn.Return<Comparison, BundleError> {
    const tokens = new Map([...a.tokenizer?.vocab ?? []].map(([token, id]) => [id, tokenText(token)]));
    const names = [...a.sides.keys()].filter((name) => b.sides.has(name));
    const apart = (name: string) => {
      const hashes = new Set(b.sides.get(name)?.facts.tensors.map((t) => t.sha256));
      return a.sides.get(name)?.facts.tensors.filter((t) => !hashes.has(t.sha256)) ?? [];
    };
    const total = names.flatMap(apart).reduce((n, t) => n + t.parameters, 0);
    let done = 0;
    const parts = [];
    for (const name of names) {
      const [first, second] = [a.sides.get(name), b.sides.get(name)];
      if (first === undefined || second === undefined) continue;
      parts.push(
        yield* compareParts(first, second, {
          tokenOf: (id) => tokens.get(id) ?? null,
          onBytes: (elements) => {
            done = Math.min(total, done + elements);
            return options.onProgress?.({ what: "comparing", path: b.description.path, done, total }) ?? Effect.void;
          },
        }),
      );
    }
    if (parts.length === 0) {
      return yield* new BundleError({
        file: b.description.path,
        problem: `has no part in common with ${a.description.path} (${
          [...b.sides.keys()].join(", ") || "none"
        }; there: ${[...a.sides.keys()].join(", ") || "none"})`,
        expected: "two checkpoints of one kind",
        hint: "A LoRA is not compared with the model that it is for: inspect it by itself.",
      });
    }
    const only = (x: Opened, y: Opened) => [...x.sides.keys()].filter((name) => !y.sides.has(name));
    const [onlyFirst, onlySecond] = [only(a, b), only(b, a)];
    return {
      headline: parts.map((p) => `${p.name}: ${p.headline}`).join("\n"),
      parts,
      onlyFirst,
      onlySecond,
      settings: settingsApart(a, b),
    };
  },
);

/**
 * Looks at a checkpoint, and with a second one at what that moved.
 * @param path a diffusers folder, the folder of one part, or a .safetensors file (a LoRA, a checkpoint in one file)
 */
export const inspect = Effect.fn("inspect")(function* (
  path: string,
  other?: string,
  options: InspectOptions = {},
): Effect.fn.Return<Inspection, BundleError> {
  const first = yield* open(path, options);
  const second = other === undefined ? undefined : yield* open(other, options);
  const comparison = second === undefined ? null : yield* compare(first, second, options);
  return {
    format: FORMAT,
    version: packageJson.version,
    ...first.description,
    other: second?.description ?? null,
    comparison,
  };
});
