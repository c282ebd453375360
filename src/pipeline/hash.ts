/** Hashes: of values (JSON with sorted keys), of bytes, of files and folders. SHA-256, in hex. */
import { Effect } from "effect";
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { join, relative, sep } from "node:path";
import { explain } from "../steps/errors.ts";

export const sha256 = (data: Uint8Array | string): string => createHash("sha256").update(data).digest("hex");

/** JSON whose keys are sorted, so that equal values have equal text. */
export const stableJson = (value: unknown): string =>
  JSON.stringify(
    value,
    (_, v: unknown) =>
      typeof v === "object" && v !== null && !Array.isArray(v)
        ? Object.fromEntries(Object.entries(v).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)))
        : v,
  ) ?? "null";

export const hashValue = (value: unknown): string => sha256(stableJson(value));

/** Hashes of files that have not changed since (same size and time): a model is read once per process. */
const memo = new Map<string, { readonly stamp: string; readonly hash: string }>();

const hashFile = async (path: string, stamp: string): Promise<string> => {
  const known = memo.get(path);
  if (known?.stamp === stamp) return known.hash;
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk);
  const digest = hash.digest("hex");
  memo.set(path, { stamp, hash: digest });
  return digest;
};

const hashAny = async (path: string): Promise<string> => {
  const info = await stat(path);
  if (!info.isDirectory()) return await hashFile(path, `${info.size} ${info.mtimeMs} ${info.ino}`);
  const names = (await readdir(path, { recursive: true, withFileTypes: true }))
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((file) => !relative(path, file).split(sep).some((part) => part.startsWith(".")))
    .sort();
  const parts: Array<[string, string]> = [];
  for (const name of names) parts.push([relative(path, name).split(sep).join("/"), await hashAny(name)]);
  return hashValue(parts);
};

/**
 * Hash of a file's content, or of a folder's files by name and content (hidden files left out). What cannot be read
 * hashes to a word that says so: the step that needs it will say it better.
 */
export const hashPath = (path: string): Effect.Effect<string> =>
  Effect.tryPromise({ try: () => hashAny(path), catch: (error) => `unreadable: ${explain(error)}` }).pipe(
    Effect.catch((words) => Effect.succeed(words)),
  );
