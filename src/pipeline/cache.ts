/**
 * Results of steps on disk, by key: `results/ab/abcd…/` holds entry.json and, per output, NAME.json and
 * NAME.safetensors. An entry is written aside and renamed, so it is whole or absent, and its hashes are checked when
 * it is read. `last/` remembers what each step of each pipeline was last made of, to say why it must run again.
 */
import { Effect, Predicate, Schema } from "effect";
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { explain } from "../steps/errors.ts";
import type { Port, Ports, Stored } from "../steps/port.ts";
import { parseHeader, readTensor, write } from "../tensor/safetensors.ts";
import { hashValue, sha256 } from "./hash.ts";
import type { Recipe } from "./recipe.ts";

const OutputEntry = Schema.Struct({
  kind: Schema.String,
  json: Schema.String,
  tensors: Schema.NullOr(Schema.String),
});

const Entry = Schema.Struct({
  key: Schema.String,
  seconds: Schema.Number,
  outputs: Schema.Record(Schema.String, OutputEntry),
});

const RecipeFile = Schema.Struct({
  step: Schema.String,
  version: Schema.Number,
  settings: Schema.Unknown,
  inputs: Schema.Record(Schema.String, Schema.String),
  files: Schema.Record(Schema.String, Schema.String),
  device: Schema.String,
});

const decodeEntry = Schema.decodeUnknownSync(Schema.fromJsonString(Entry));
const decodeRecipe = Schema.decodeUnknownSync(Schema.fromJsonString(RecipeFile));

/** What a look into the cache found. */
export type Found =
  | { readonly _tag: "hit"; readonly outputs: Readonly<Record<string, unknown>>; readonly seconds: number }
  | { readonly _tag: "miss" }
  /** An entry that is there and cannot be trusted; it has been removed. */
  | { readonly _tag: "damaged"; readonly reason: string };

export interface Cache {
  readonly folder: string;
  /** Whether an entry is there (its content is not checked). */
  readonly has: (key: string) => Effect.Effect<boolean>;
  /** Reads, checks and decodes an entry. */
  readonly get: (key: string, ports: Ports) => Effect.Effect<Found>;
  /** Stores an entry. Gives the reason when that fails: a full disk must not cost a finished result. */
  readonly put: (
    key: string,
    seconds: number,
    ports: Ports,
    outputs: Readonly<Record<string, unknown>>,
  ) => Effect.Effect<string | undefined>;
  /** Removes an entry, if it is there. */
  readonly drop: (key: string) => Effect.Effect<void>;
  /** What the step `id` of the pipeline `file` was last made of. */
  readonly last: (file: string, id: string) => Effect.Effect<Recipe | undefined>;
  readonly remember: (file: string, id: string, recipe: Recipe) => Effect.Effect<void>;
}

/** SAU_CACHE, else `sau` in XDG_CACHE_HOME, else ~/.cache/sau. */
export const defaultCacheFolder = (): string =>
  process.env.SAU_CACHE || join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "sau");

const DAY = 86_400_000;

/** Files left by a process that was killed while it wrote. Younger ones may belong to a run beside this one. */
const sweep = async (temporary: string): Promise<void> => {
  for (const name of await readdir(temporary).catch(() => [])) {
    const path = join(temporary, name);
    const info = await stat(path).catch(() => undefined);
    if (info && Date.now() - info.mtimeMs > DAY) await rm(path, { recursive: true, force: true });
  }
};

/** Output names are names of ports, which a step's author may choose freely: keep them inside the entry. */
const fileName = (output: string): string => encodeURIComponent(output).replaceAll(".", "%2E");

const store = (stored: Stored): { json: string; tensors: Uint8Array | null } => {
  const tensors = new Map(Object.entries(stored.tensors));
  return { json: JSON.stringify(stored.json) ?? "null", tensors: tensors.size === 0 ? null : write(tensors) };
};

const load = (json: string, bytes: Uint8Array | null, file: string): Stored => {
  if (bytes === null) return { json: JSON.parse(json), tensors: {} };
  const header = parseHeader(bytes, bytes.length, file);
  const tensors = [...header.entries.keys()].map((key) => [key, readTensor(bytes, header, key)]);
  return { json: JSON.parse(json), tensors: Object.fromEntries(tensors) };
};

/** A port decodes at once or by an effect; either way it may fail in ways of its own. */
const decodeValue = (port: Port<unknown>, stored: Stored): Effect.Effect<unknown, unknown> =>
  Effect.suspend(() => {
    const value: unknown = port.decode(stored);
    // Port's type says that such an effect needs nothing from outside; `isEffect` cannot see that.
    return Effect.isEffect(value) ? value as Effect.Effect<unknown, unknown> : Effect.succeed(value);
  });

export const openCache = (folder: string): Cache => {
  const root = join(folder, "v1");
  const temporary = join(root, "tmp");
  const entryFolder = (key: string) => join(root, "results", key.slice(0, 2), key);
  const lastFile = (file: string, id: string) => join(root, "last", `${hashValue([file, id])}.json`);
  const fresh = () => join(temporary, `${process.pid}-${crypto.randomUUID()}`);

  const read = async (key: string) => {
    const at = entryFolder(key);
    const entry = decodeEntry(await readFile(join(at, "entry.json"), "utf8"));
    if (entry.key !== key) throw new Error("it belongs to another key");
    const outputs: Array<[string, { kind: string; stored: Stored }]> = [];
    for (const [name, { kind, json, tensors }] of Object.entries(entry.outputs)) {
      const file = join(at, fileName(name));
      const text = await readFile(`${file}.json`, "utf8");
      // A plain Uint8Array: a Buffer's `slice` shares memory where an array's copies.
      const bytes = tensors === null ? null : new Uint8Array(await readFile(`${file}.safetensors`));
      if (sha256(text) !== json || (bytes !== null && sha256(bytes) !== tensors)) {
        throw new Error(`the bytes of ${name} are not those that were written`);
      }
      outputs.push([name, { kind, stored: load(text, bytes, `${file}.safetensors`) }]);
    }
    return { seconds: entry.seconds, outputs: new Map(outputs) };
  };

  const drop: Cache["drop"] = (key) =>
    Effect.promise(() => rm(entryFolder(key), { recursive: true, force: true }).catch(() => {}));

  const get: Cache["get"] = (key, ports) =>
    Effect.gen(function* () {
      const present = yield* has(key);
      if (!present) return { _tag: "miss" } as const;
      const { outputs, seconds } = yield* Effect.tryPromise({ try: () => read(key), catch: (e) => e });
      const values: Array<[string, unknown]> = [];
      for (const [name, port] of Object.entries(ports)) {
        const found = outputs.get(name);
        if (found === undefined || found.kind !== port.kind) throw new Error(`it holds no ${port.kind} ${name}`);
        values.push([name, yield* decodeValue(port, found.stored)]);
      }
      return { _tag: "hit", seconds, outputs: Object.fromEntries(values) } as const;
    }).pipe(
      // A port that throws (or yields an error) while decoding found something that no port of its kind wrote.
      Effect.catchDefect((defect) => Effect.fail(defect)),
      Effect.catch((error) =>
        Effect.as(
          drop(key),
          { _tag: "damaged", reason: explain(error) } as const,
        )
      ),
    );

  const has: Cache["has"] = (key) =>
    Effect.promise(() => stat(join(entryFolder(key), "entry.json")).then(() => true, () => false));

  const writeEntry = async (
    key: string,
    seconds: number,
    ports: Ports,
    values: Readonly<Record<string, unknown>>,
  ): Promise<void> => {
    const at = fresh();
    try {
      await mkdir(at, { recursive: true });
      await sweep(temporary);
      const outputs: Record<string, typeof OutputEntry.Type> = {};
      for (const [name, port] of Object.entries(ports)) {
        const { json, tensors } = store(port.encode(values[name]));
        const file = join(at, fileName(name));
        await writeFile(`${file}.json`, json);
        if (tensors !== null) await writeFile(`${file}.safetensors`, tensors);
        outputs[name] = { kind: port.kind, json: sha256(json), tensors: tensors === null ? null : sha256(tensors) };
      }
      await writeFile(join(at, "entry.json"), JSON.stringify({ key, seconds, outputs }));
      await mkdir(join(entryFolder(key), ".."), { recursive: true });
      await rename(at, entryFolder(key)).catch((error: unknown) => {
        // Another run stored the same result in the meantime; both are right.
        const code = Predicate.isObject(error) && "code" in error ? error.code : undefined;
        if (code !== "ENOTEMPTY" && code !== "EEXIST") throw error;
      });
    } finally {
      await rm(at, { recursive: true, force: true });
    }
  };

  return {
    folder,
    has,
    get,
    drop,
    put: (key, seconds, ports, outputs) =>
      Effect.tryPromise({ try: () => writeEntry(key, seconds, ports, outputs), catch: explain }).pipe(
        Effect.as(undefined),
        Effect.catch((reason) => Effect.succeed(reason)),
        // Once the result exists, Ctrl-C waits for the moment it takes to keep it.
        Effect.uninterruptible,
      ),
    last: (file, id) =>
      Effect.promise(() => readFile(lastFile(file, id), "utf8").then(decodeRecipe).catch(() => undefined)),
    remember: (file, id, recipe) =>
      Effect.promise(async () => {
        // Only used to explain: failing to write it costs nothing.
        const at = fresh();
        try {
          await mkdir(temporary, { recursive: true });
          await mkdir(join(root, "last"), { recursive: true });
          await writeFile(at, JSON.stringify(recipe));
          await rename(at, lastFile(file, id));
        } catch {
          await rm(at, { force: true }).catch(() => {});
        }
      }),
  };
};
