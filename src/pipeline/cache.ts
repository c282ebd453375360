/**
 * Results of steps on disk, by key, within a limit of bytes: beyond it goes what was not used for longest. `last/`
 * remembers what each step of each pipeline was last made of, to say why it must run again.
 */
import { Effect, Schema } from "effect";
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { explain } from "../steps/errors.ts";
import type { Port, Ports, Stored } from "../steps/port.ts";
import {
  type About,
  hasEntry,
  layout,
  listEntries,
  readEntry,
  removeEntry,
  touchEntry,
  writeEntry,
} from "./entries.ts";
import { hashValue } from "./hash.ts";
import type { Recipe } from "./recipe.ts";
import { DEFAULT_LIMIT, parseSize, surplus } from "./upkeep.ts";

const RecipeFile = Schema.Struct({
  step: Schema.String,
  version: Schema.Number,
  settings: Schema.Unknown,
  inputs: Schema.Record(Schema.String, Schema.String),
  files: Schema.Record(Schema.String, Schema.String),
  device: Schema.String,
});

const decodeRecipe = Schema.decodeUnknownSync(Schema.fromJsonString(RecipeFile));

/** What a look into the cache found. */
export type Found =
  | ({ readonly _tag: "hit"; readonly outputs: Readonly<Record<string, unknown>> } & Omit<About, "use">)
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
    about: About,
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

/** A port decodes at once or by an effect; either way it may fail in ways of its own. */
const decodeValue = (port: Port<unknown>, stored: Stored): Effect.Effect<unknown, unknown> =>
  Effect.suspend(() => {
    const value: unknown = port.decode(stored);
    // Port's type says that such an effect needs nothing from outside; `isEffect` cannot see that.
    return Effect.isEffect(value) ? value as Effect.Effect<unknown, unknown> : Effect.succeed(value);
  });

/** SAU_CACHE_LIMIT in bytes (`50 GB`, `none`), else 20 GB. @throws where it is no size */
export const defaultCacheLimit = (): number => {
  const text = process.env.SAU_CACHE_LIMIT;
  if (text === undefined || text === "") return DEFAULT_LIMIT;
  const bytes = parseSize(text);
  if (bytes === undefined) throw new Error(`SAU_CACHE_LIMIT is "${text}"; expected a size like "50 GB", or "none"`);
  return bytes;
};

/** Opens the cache in a folder. `limit`: bytes that it may hold; what this process used stays in any case. */
export const openCache = (folder: string, limit: number = defaultCacheLimit()): Cache => {
  const at = layout(folder);
  const lastFile = (file: string, id: string) => join(at.last, `${hashValue([file, id])}.json`);
  const used = new Set<string>();
  /** Bytes of all entries, as far as this process knows; counted when first needed. */
  let total: number | undefined;

  const keepWithin = async (written: number): Promise<void> => {
    if (limit === Infinity) return;
    total = total === undefined ? undefined : total + written;
    if (total !== undefined && total <= limit) return;
    const entries = await listEntries(at);
    const gone = surplus(entries, limit, used);
    for (const { key } of gone) await removeEntry(at, key);
    total = entries.reduce((sum, e) => gone.includes(e) ? sum : sum + e.bytes, 0);
  };

  const drop: Cache["drop"] = (key) => Effect.promise(() => removeEntry(at, key).catch(() => {}));

  const get: Cache["get"] = (key, ports) =>
    Effect.gen(function* () {
      const present = yield* has(key);
      if (!present) return { _tag: "miss" } as const;
      const { outputs, ...about } = yield* Effect.tryPromise({ try: () => readEntry(at, key), catch: (e) => e });
      const values: Array<[string, unknown]> = [];
      for (const [name, port] of Object.entries(ports)) {
        const found = outputs.get(name);
        if (found === undefined || found.kind !== port.kind) throw new Error(`it holds no ${port.kind} ${name}`);
        values.push([name, yield* decodeValue(port, found.stored)]);
      }
      used.add(key);
      yield* Effect.promise(() => touchEntry(at, key));
      return { _tag: "hit", ...about, outputs: Object.fromEntries(values) } as const;
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
    Effect.promise(async () => {
      const present = await hasEntry(at, key);
      // What a run counts on must still be there when its turn comes.
      if (present) used.add(key);
      return present;
    });

  return {
    folder,
    has,
    get,
    drop,
    put: (key, about, ports, outputs) =>
      Effect.tryPromise({
        try: async () => {
          used.add(key);
          await keepWithin(await writeEntry(at, key, about, ports, outputs));
        },
        catch: explain,
      }).pipe(
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
        const aside = at.fresh();
        try {
          await mkdir(at.temporary, { recursive: true });
          await mkdir(at.last, { recursive: true });
          await writeFile(aside, JSON.stringify(recipe));
          await rename(aside, lastFile(file, id));
        } catch {
          await rm(aside, { force: true }).catch(() => {});
        }
      }),
  };
};
