/**
 * How results of steps lie on disk: `results/ab/abcd…/` holds entry.json and, per output, NAME.json and
 * NAME.safetensors. An entry appears and goes by one rename, so it is whole or absent whenever a process is killed; its
 * hashes are checked when it is read. The time of entry.json is when the entry was last used.
 */
import { Schema } from "effect";
import { mkdir, readdir, readFile, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import type { Ports, Stored } from "../steps/port.ts";
import { parseHeader, readTensor, write } from "../tensor/safetensors.ts";
import { sha256 } from "./hash.ts";

const OutputEntry = Schema.Struct({
  kind: Schema.String,
  json: Schema.String,
  tensors: Schema.NullOr(Schema.String),
});

const Entry = Schema.Struct({
  key: Schema.String,
  /** Name of the step that made it. */
  use: Schema.optionalKey(Schema.String),
  seconds: Schema.Number,
  peak: Schema.optionalKey(Schema.Number),
  outputs: Schema.Record(Schema.String, OutputEntry),
});

const decodeEntry = Schema.decodeUnknownSync(Schema.fromJsonString(Entry));

/** What stands beside an entry's outputs. */
export interface About {
  readonly use: string;
  /** How long the step took. */
  readonly seconds: number;
  /** Most bytes that the process held meanwhile, where that is known. */
  readonly peak?: number;
}

/** One entry as a list shows it. */
export interface EntryInfo extends Partial<About> {
  readonly key: string;
  readonly bytes: number;
  /** Milliseconds since 1970. */
  readonly used: number;
}

const KEY = /^[0-9a-f]{64}$/;

/** Folders of a cache. */
export const layout = (folder: string) => {
  const root = join(folder, "v1");
  const temporary = join(root, "tmp");
  return {
    root,
    temporary,
    results: join(root, "results"),
    last: join(root, "last"),
    entry: (key: string) => join(root, "results", key.slice(0, 2), key),
    /** A new name to write under before the rename. */
    fresh: () => join(temporary, `${process.pid}-${crypto.randomUUID()}`),
  };
};
export type Layout = ReturnType<typeof layout>;

const DAY = 86_400_000;

/** Removes what processes that were killed left behind. Younger files may belong to a run beside this one. */
export const sweep = async ({ temporary }: Layout): Promise<void> => {
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

const describe = async (at: Layout, key: string) => {
  const entry = decodeEntry(await readFile(join(at.entry(key), "entry.json"), "utf8"));
  if (entry.key !== key) throw new Error("it belongs to another key");
  return entry;
};

/** Reads an entry, every byte checked. @throws where it is not what was written */
export const readEntry = async (at: Layout, key: string) => {
  const entry = await describe(at, key);
  const outputs = new Map<string, { readonly kind: string; readonly stored: Stored }>();
  for (const [name, { kind, json, tensors }] of Object.entries(entry.outputs)) {
    const file = join(at.entry(key), fileName(name));
    const text = await readFile(`${file}.json`, "utf8");
    // A plain Uint8Array: a Buffer's `slice` shares memory where an array's copies.
    const bytes = tensors === null ? null : new Uint8Array(await readFile(`${file}.safetensors`));
    if (sha256(text) !== json || (bytes !== null && sha256(bytes) !== tensors)) {
      throw new Error(`the bytes of ${name} are not those that were written`);
    }
    outputs.set(name, { kind, stored: load(text, bytes, `${file}.safetensors`) });
  }
  return { seconds: entry.seconds, ...(entry.peak === undefined ? {} : { peak: entry.peak }), outputs };
};

export const hasEntry = (at: Layout, key: string): Promise<boolean> =>
  stat(join(at.entry(key), "entry.json")).then(() => true, () => false);

/** Notes that an entry was used; that it could not be noted costs its place in the queue alone. */
export const touchEntry = async (at: Layout, key: string): Promise<void> => {
  const now = new Date();
  await utimes(join(at.entry(key), "entry.json"), now, now).catch(() => {});
};

/** Takes an entry away in one move; what it held is deleted after that. */
export const removeEntry = async (at: Layout, key: string): Promise<void> => {
  const away = at.fresh();
  await mkdir(at.temporary, { recursive: true });
  const there = await rename(at.entry(key), away).then(() => true, () => false);
  if (there) await rm(away, { recursive: true, force: true });
};

const codeOf = (error: unknown): unknown =>
  typeof error === "object" && error !== null && "code" in error ? error.code : undefined;

/** Writes an entry. Gives its bytes. */
export const writeEntry = async (
  at: Layout,
  key: string,
  about: About,
  ports: Ports,
  values: Readonly<Record<string, unknown>>,
): Promise<number> => {
  const aside = at.fresh();
  let bytes = 0;
  const put = async (file: string, data: string | Uint8Array) => {
    await writeFile(file, data);
    bytes += data.length;
  };
  try {
    await mkdir(aside, { recursive: true });
    await sweep(at);
    const outputs: Record<string, typeof OutputEntry.Type> = {};
    for (const [name, port] of Object.entries(ports)) {
      const { json, tensors } = store(port.encode(values[name]));
      const file = join(aside, fileName(name));
      await put(`${file}.json`, json);
      if (tensors !== null) await put(`${file}.safetensors`, tensors);
      outputs[name] = { kind: port.kind, json: sha256(json), tensors: tensors === null ? null : sha256(tensors) };
    }
    await put(join(aside, "entry.json"), JSON.stringify({ key, ...about, outputs }));
    await mkdir(join(at.entry(key), ".."), { recursive: true });
    for (let tries = 0;; tries++) {
      try {
        await rename(aside, at.entry(key));
        break;
      } catch (error) {
        if (!["ENOTEMPTY", "EEXIST"].includes(String(codeOf(error))) || tries > 2) throw error;
        // Another run stored the same result in the meantime; both are right. A folder without entry.json is none.
        if (await hasEntry(at, key)) break;
        await removeEntry(at, key);
      }
    }
  } finally {
    await rm(aside, { recursive: true, force: true });
  }
  return bytes;
};

/** Every entry, the longest unused first. What cannot be read as one is listed without its step. */
export const listEntries = async (at: Layout): Promise<EntryInfo[]> => {
  const found: EntryInfo[] = [];
  const prefixes = await readdir(at.results).catch((error: unknown): string[] => {
    // A cache that nobody has written to yet is empty; one that cannot be read is not.
    if (codeOf(error) === "ENOENT") return [];
    throw error;
  });
  for (const prefix of prefixes) {
    for (const key of await readdir(join(at.results, prefix)).catch(() => [])) {
      if (!KEY.test(key)) continue;
      const names: string[] = await readdir(at.entry(key)).catch(() => []);
      const sizes = await Promise.all(names.map((name) => stat(join(at.entry(key), name)).catch(() => undefined)));
      const bytes = sizes.reduce((sum, info) => sum + (info?.size ?? 0), 0);
      const used = sizes[names.indexOf("entry.json")]?.mtimeMs ?? 0;
      const about = await describe(at, key).catch(() => undefined);
      found.push({
        key,
        bytes,
        used,
        ...(about === undefined ? {} : { seconds: about.seconds }),
        ...(about?.use === undefined ? {} : { use: about.use }),
      });
    }
  }
  return found.sort((a, b) => a.used - b.used);
};
