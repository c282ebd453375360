/** Looking after a cache: what it holds, whether it is sound, and taking away what was not used for longest. */
import { Effect } from "effect";
import { readdir, rm } from "node:fs/promises";
import { explain } from "../steps/errors.ts";
import { type EntryInfo, layout, listEntries, readEntry, removeEntry } from "./entries.ts";

export type { EntryInfo } from "./entries.ts";

/** Bytes that a cache may hold unless told otherwise. */
export const DEFAULT_LIMIT = 20e9;

const UNITS: Readonly<Record<string, number>> = { "": 1, b: 1, kb: 1e3, mb: 1e6, gb: 1e9, tb: 1e12 };

/** Bytes of a size as people write it: `500 MB`, `20GB`, `1048576`; `none` is no limit. Undefined where it is none. */
export const parseSize = (text: string): number | undefined => {
  if (text.trim().toLowerCase() === "none") return Infinity;
  const match = /^\s*(\d+(?:\.\d+)?)\s*([kmgt]?b?)\s*$/i.exec(text);
  const unit = match?.[2].toLowerCase() ?? "";
  const factor = UNITS[unit] ?? UNITS[`${unit}b`];
  return match === null || factor === undefined ? undefined : Math.round(Number(match[1]) * factor);
};

/** Which entries of a list (the longest unused first) must go so that the others fit. */
export const surplus = (
  entries: ReadonlyArray<EntryInfo>,
  limit: number,
  keep: ReadonlySet<string> = new Set(),
): EntryInfo[] => {
  let total = entries.reduce((sum, { bytes }) => sum + bytes, 0);
  return entries.filter(({ key, bytes }) => {
    if (total <= limit || keep.has(key)) return false;
    total -= bytes;
    return true;
  });
};

export interface PruneOptions {
  /** Bytes that may stay. */
  readonly limit?: number;
  /** Entries not used for that many days go. */
  readonly olderThan?: number;
  /** Everything goes, also what killed runs left and what is remembered of earlier ones. */
  readonly all?: boolean;
}

export const upkeep = (folder: string) => {
  const at = layout(folder);
  return {
    /** Every entry, the longest unused first. */
    list: Effect.promise(() => listEntries(at)),
    /** Reads every byte; what is not as it was written is taken away and named. */
    verify: (onEntry: (done: number, total: number) => void = () => {}) =>
      Effect.promise(async () => {
        const entries = await listEntries(at);
        const damaged: Array<EntryInfo & { readonly why: string }> = [];
        for (const [i, entry] of entries.entries()) {
          try {
            await readEntry(at, entry.key);
          } catch (error) {
            damaged.push({ ...entry, why: explain(error) });
            await removeEntry(at, entry.key);
          }
          onEntry(i + 1, entries.length);
        }
        return { checked: entries.length, damaged };
      }),
    /** Takes entries away and gives them. A run beside this one does again what it needed of them. */
    prune: ({ limit = Infinity, olderThan = Infinity, all = false }: PruneOptions) =>
      Effect.promise(async () => {
        const entries = await listEntries(at);
        const before = Date.now() - olderThan * 86_400_000;
        const old = entries.filter(({ used }) => all || used < before);
        const rest = entries.filter((entry) => !old.includes(entry));
        const gone = [...old, ...surplus(rest, limit)];
        for (const { key } of gone) await removeEntry(at, key);
        if (all) {
          for (const dir of [at.temporary, at.last]) {
            for (const name of await readdir(dir).catch(() => [])) {
              await rm(`${dir}/${name}`, { recursive: true, force: true });
            }
          }
        }
        return gone;
      }),
  };
};
