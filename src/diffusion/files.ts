/**
 * Reading a stranger's folder. Names that are asked for are fixed; links may point anywhere, so where a file really lies
 * is checked before it is opened.
 */
import { Effect, Predicate, Schema } from "effect";
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { type FileHandle, open, readFile, realpath, stat } from "node:fs/promises";
import { dirname, isAbsolute, join, relative, resolve, sep } from "node:path";
import { BundleError } from "./errors.ts";

/** A folder that may be read. `allowed` are the real folders in which its files may lie. */
export interface Folder {
  readonly path: string;
  readonly allowed: readonly string[];
}

/** Code of a system error (`ENOENT`, `ENOSPC`…), or undefined. */
export const codeOf = (error: unknown): string | undefined =>
  Predicate.isObject(error) && "code" in error && Predicate.isString(error.code) ? error.code : undefined;

/** A system call; its failure becomes a BundleError on `file`. */
export const system = <A>(file: string, problem: string, call: () => Promise<A>): Effect.Effect<A, BundleError> =>
  Effect.tryPromise({
    try: call,
    catch: (e) => {
      const code = codeOf(e);
      if (code === "EACCES" || code === "EPERM") return new BundleError({ file, problem: `${problem}: no permission` });
      return new BundleError({ file, problem: `${problem}: ${code ?? (e instanceof Error ? e.message : String(e))}` });
    },
  });

/** True when `path` is `folder` or lies in it. Both absolute. */
export const isInside = (path: string, folder: string): boolean => {
  const way = relative(folder, path);
  return way === "" || (way !== ".." && !way.startsWith(`..${sep}`) && !isAbsolute(way));
};

/** Hugging Face's download cache keeps a snapshot's files as links into the `blobs` folder of the same model. */
const blobsOf = (real: string): string[] => {
  const parts = real.split(sep);
  const at = parts.lastIndexOf("snapshots");
  return at > 0 && parts[at - 1].startsWith("models--") ? [join(parts.slice(0, at).join(sep), "blobs")] : [];
};

/** Opens a folder for reading. `what` names it in errors ("model folder"). */
export const openFolder = Effect.fnUntraced(function* (path: string, what: string) {
  const full = resolve(path);
  const info = yield* Effect.promise(() => stat(full).catch(() => undefined));
  if (info === undefined) {
    return yield* new BundleError({
      file: path,
      problem: `does not exist (${what})`,
      expected: "a folder on this machine",
      hint: /^[\w.-]+\/[\w.-]+$/.test(path)
        ? `If this is a name on the Hugging Face hub, download it first: hf download ${path} --local-dir ${
          path.split("/")[1]
        }`
        : `Nearest folder that exists: ${yield* Effect.promise(() => nearestFolder(full))}`,
    });
  }
  if (!info.isDirectory()) {
    return yield* new BundleError({
      file: path,
      problem: `is a file; a ${what} is a folder`,
      hint: /\.(ckpt|pt|pth|bin)$/i.test(path)
        ? "Pickled checkpoints can run code when they are opened, so they are not read. Convert it where that does no harm, to one " +
          '.safetensors file: safetensors.torch.save_file(torch.load(FILE, weights_only=True)["state_dict"], NEW_FILE)'
        : "Give the folder that the file lies in.",
    });
  }
  const real = yield* system(path, "cannot be opened", () => realpath(full));
  const folder: Folder = { path: full, allowed: [real, ...blobsOf(real)] };
  return folder;
});

const nearestFolder = async (path: string): Promise<string> => {
  for (let at = path; at !== dirname(at); at = dirname(at)) {
    const info = await stat(at).catch(() => undefined);
    if (info?.isDirectory()) return at;
  }
  return sep;
};

/** A folder in a folder, under the same limits; undefined when there is none. */
export const subFolder = (folder: Folder, name: string): Effect.Effect<Folder | undefined, BundleError> =>
  Effect.map(locate(folder, name, "folder"), (path) => path === undefined ? undefined : { ...folder, path });

/** Path of a regular file in the folder, or undefined when there is none. Fails when it really lies elsewhere. */
export const fileIn = (folder: Folder, name: string): Effect.Effect<string | undefined, BundleError> =>
  locate(folder, name, "file");

const locate = Effect.fnUntraced(function* (folder: Folder, name: string, kind: "file" | "folder") {
  const path = join(folder.path, name);
  const real = yield* Effect.tryPromise({
    try: () => realpath(path),
    catch: (e) =>
      codeOf(e) === "ENOENT" || codeOf(e) === "ENOTDIR"
        ? undefined
        : new BundleError({ file: path, problem: `cannot be opened: ${codeOf(e) ?? e}` }),
  }).pipe(Effect.catch((e) => e === undefined ? Effect.succeed(undefined) : Effect.fail(e)));
  if (real === undefined) return undefined;
  if (!folder.allowed.some((root) => isInside(real, root))) {
    return yield* new BundleError({
      file: path,
      problem: `is a link that leaves its folder, to ${real}`,
      expected: `a ${kind} inside ${folder.allowed[0]}`,
      hint: "Copy what it points to into the folder, if you trust it.",
    });
  }
  const info = yield* system(path, "cannot be opened", () => stat(real));
  if (kind === "file" ? info.isFile() : info.isDirectory()) return path;
  return yield* new BundleError({ file: path, problem: `is not a ${kind}`, expected: `a ${kind}` });
});

/** A JSON file decoded by a schema; undefined when it is absent. At most `limit` bytes are read. */
export const readJson = Effect.fnUntraced(function* <A, I>(
  folder: Folder,
  name: string,
  schema: Schema.Codec<A, I>,
  limit = 1 << 20,
) {
  const path = yield* fileIn(folder, name);
  if (path === undefined) return undefined;
  const text = yield* readText(path, limit);
  const json = yield* Effect.try({
    try: (): unknown => JSON.parse(plainJson(text)),
    catch: (e) => new BundleError({ file: path, problem: `is not JSON: ${e instanceof Error ? e.message : e}` }),
  });
  return yield* Schema.decodeUnknownEffect(schema)(json).pipe(
    Effect.mapError((e) =>
      new BundleError({ file: path, problem: `does not hold what it should: ${shorten(e.message)}` })
    ),
  );
});

/**
 * Python writes numbers that JSON does not have (diffusers: `"lambda_min_clipped": -Infinity`); they become null. Strings
 * are passed over whole.
 */
const plainJson = (text: string): string =>
  text.replace(/"(?:[^"\\]|\\.)*"|-?Infinity|NaN/g, (found) => found.startsWith('"') ? found : "null");

const shorten = (text: string): string => text.length > 600 ? `${text.slice(0, 600)}…` : text;

/** A text file of at most `limit` bytes. */
export const readText = Effect.fnUntraced(function* (path: string, limit: number) {
  const { size } = yield* system(path, "cannot be read", () => stat(path));
  if (size > limit) {
    return yield* new BundleError({ file: path, problem: `has ${size} bytes`, expected: `at most ${limit}` });
  }
  return yield* system(path, "cannot be read", () => readFile(path, "utf8"));
});

/** A file opened for reading, for as long as `use` runs. */
export const withFile = <A, E>(
  path: string,
  use: (handle: FileHandle) => Effect.Effect<A, E>,
): Effect.Effect<A, E | BundleError> =>
  Effect.acquireUseRelease(
    system(path, "cannot be opened", () => open(path, "r")),
    use,
    (handle) => Effect.promise(() => handle.close()),
  );

/** Fills `into` from a file's position on. Fails when the file ends before. */
export const readFully = (handle: FileHandle, path: string, into: Uint8Array, position: number) =>
  system(path, "cannot be read", async () => {
    // Some runtimes refuse reads of 2 GiB and more at once.
    const piece = 1 << 28;
    for (let at = 0; at < into.length;) {
      const { bytesRead } = await handle.read(into, at, Math.min(piece, into.length - at), position + at);
      if (bytesRead === 0) {
        throw new Error(`it ended at byte ${position + at} while it was read; did something change it?`);
      }
      at += bytesRead;
    }
  });

/** SHA-256 of a file, in hex, read in pieces. */
export const hashFile = (path: string): Effect.Effect<string, BundleError> =>
  system(path, "cannot be read", async () => {
    const hash = createHash("sha256");
    for await (const piece of createReadStream(path, { highWaterMark: 1 << 22 })) hash.update(piece);
    return hash.digest("hex");
  });
