/** A changed model as a folder of its own: complete or not there at all, and never in place of the model it came from. */
import { Effect, Exit } from "effect";
import { lstat, mkdir, mkdtemp, readdir, realpath, rename, rm, rmdir, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import process from "node:process";
import { type Bundle, type BundlePart, partOf, partsOf } from "./bundle.ts";
import { Disk, noRoom, writing } from "./disk.ts";
import { BundleError } from "./errors.ts";
import { fileIn, type Folder, hashFile, isInside, subFolder, system } from "./files.ts";
import { hashOf, isWeights, stems } from "./part.ts";
import { saveCheckpoint } from "./single_file/save.ts";
import { writePart } from "./write_part.ts";
import { changedBytes, checkChanges, withWeights } from "./weights.ts";
import type { WeightsFile } from "./weights_file.ts";

/** Stands in every folder that is written here; such a folder may be written again. */
export const MARKER = "sau.json";

/** What was written. */
export interface Saved {
  /** The folder; of a checkpoint in one file, that file. */
  readonly folder: string;
  /** SHA-256 of each part's weights file; of several, of their hashes. */
  readonly sha256: ReadonlyMap<BundlePart, string>;
  /** Files of the input that were not copied: other forms of the weights, which would still hold the backdoor. */
  readonly leftOut: readonly string[];
  /** What there is to say of parts that came in a form that is only read. */
  readonly exported: readonly string[];
}

/** One file of the new folder: copied, and written over where weights have changes. */
interface Copied {
  readonly to: string;
  readonly from: string;
  readonly weights?: { readonly part: BundlePart; readonly file: WeightsFile };
}
/** One that is made anew: of a part whose own form is only read, or of what was understood of a file. */
interface Made {
  readonly to: string;
  readonly content: string | { readonly part: BundlePart };
}
type Item = Copied | Made;

const MAX_FILES = 2000;

/** Every file below a folder, by its path from there. Hidden ones (.git, download caches) are left alone. */
const walk = Effect.fnUntraced(function* (folder: Folder): Effect.fn.Return<string[], BundleError> {
  const found: string[] = [];
  const visit = (at: Folder, prefix: string, depth: number): Effect.Effect<void, BundleError> =>
    Effect.gen(function* () {
      const entries = yield* system(at.path, "cannot be listed", () => readdir(at.path));
      for (const name of entries.filter((n) => !n.startsWith(".")).sort()) {
        const info = yield* system(join(at.path, name), "cannot be read", () => stat(join(at.path, name)));
        if (info.isDirectory()) {
          const sub = yield* subFolder(at, name);
          if (sub !== undefined && depth < 3) yield* visit(sub, `${prefix}${name}/`, depth + 1);
        } else if ((yield* fileIn(at, name)) !== undefined) found.push(prefix + name);
        if (found.length > MAX_FILES) {
          return yield* new BundleError({ file: folder.path, problem: `holds more than ${MAX_FILES} files` });
        }
      }
    });
  yield* visit(folder, "", 0);
  return found;
});

/**
 * What goes into the new folder: each part, the other components that model_index.json names, and the small files beside them. A part
 * that was exported becomes a file of safetensors.
 */
const contents = Effect.fnUntraced(function* (bundle: Bundle) {
  const items: Item[] = [];
  const leftOut: string[] = [];
  const parts = partsOf(bundle);
  const isExport = parts.some(([, part]) => part.isGraph);
  for (const [name, part] of parts) {
    if (part.isGraph) {
      items.push({ to: `${name}/${stems[name]}.safetensors`, content: { part: name } });
      // Another folder may have described it.
      items.push({ to: `${name}/config.json`, content: `${JSON.stringify(part.config, null, 2)}\n` });
    }
    for (const file of yield* walk(part.folder)) {
      const from = join(part.folder.path, file);
      const to = `${name}/${file}`;
      const weights = part.files.find(({ path }) => path === from);
      if (part.isGraph && file === "config.json") continue;
      if (part.isGraph && (weights !== undefined || from === part.file)) {
        leftOut.push(`${basename(part.folder.path)}/${file}`);
      } else if (weights !== undefined) items.push({ from, to, weights: { part: name, file: weights } });
      else if (from === part.file) items.push({ from, to });
      else if (isWeights(file)) leftOut.push(to);
      else items.push({ from, to });
    }
  }
  const components = Object.entries(bundle.index).filter(([name, value]) =>
    Array.isArray(value) && typeof value[0] === "string" && !parts.some(([p]) => p === name) && /^\w+$/.test(name)
  );
  for (const [name] of components) {
    const folder = yield* subFolder(bundle.root, name);
    for (const file of folder === undefined ? [] : yield* walk(folder)) {
      items.push({ from: join(bundle.root.path, name, file), to: `${name}/${file}` });
    }
  }
  for (const file of yield* system(bundle.root.path, "cannot be listed", () => readdir(bundle.root.path))) {
    const info = yield* system(
      join(bundle.root.path, file),
      "cannot be read",
      () => stat(join(bundle.root.path, file)),
    );
    if (!info.isFile() || file.startsWith(".") || file === MARKER) continue;
    if (isWeights(file)) leftOut.push(file);
    else if (isExport && file === "model_index.json") {
      items.push({ to: file, content: `${JSON.stringify(bundle.index, null, 2)}\n` });
    } else if ((yield* fileIn(bundle.root, file)) !== undefined) {
      items.push({ from: join(bundle.root.path, file), to: file });
    }
  }
  return { items, leftOut };
});

/** What became of parts that were exported. */
const exportNotes = (bundle: Bundle): string[] => {
  const parts = partsOf(bundle).filter(([, part]) => part.isGraph).map(([name]) => name);
  if (parts.length === 0) return [];
  return [
    `${
      parts.join(", ")
    }: the model came as ONNX, the cure is a diffusers folder of safetensors. The ONNX files were not changed and ` +
    "still hold the backdoor; export the cured folder to replace them (optimum-cli export onnx --model CURED NEW)",
  ];
};

/** Where a path really lies, also when its last parts do not exist yet. */
const realPlace = async (path: string): Promise<string> => {
  for (let at = path, rest = "";; rest = join(basename(at), rest), at = dirname(at)) {
    const real = await realpath(at).catch(() => undefined);
    if (real !== undefined) return join(real, rest);
    if (at === dirname(at)) return path;
  }
};

/** Refuses an output folder that would endanger something. True when there is one of ours (or a forced one) to replace. */
const checkOut = Effect.fnUntraced(function* (bundle: Bundle, out: string, force: boolean) {
  const place = yield* Effect.promise(() => realPlace(out));
  const inputs = [bundle.root, ...partsOf(bundle).map(([, part]) => part.folder)];
  for (const input of inputs) {
    const real = yield* system(input.path, "cannot be read", () => realpath(input.path));
    if (isInside(place, real) || isInside(real, place)) {
      return yield* new BundleError({
        file: out,
        problem: `cannot be the output: the model that is read lies there (${input.path})`,
        hint: "The input is never written to. Choose a folder outside of it.",
      });
    }
  }
  const info = yield* Effect.promise(() => lstat(out).catch(() => undefined));
  if (info === undefined) return false;
  if (!info.isDirectory()) {
    return yield* new BundleError({
      file: out,
      problem: "cannot be the output: it is a file or a link",
      expected: "a new or empty folder",
    });
  }
  const files = yield* system(out, "cannot be listed", () => readdir(out));
  if (files.length > 0 && isInside(process.cwd(), place)) {
    return yield* new BundleError({ file: out, problem: "cannot be the output: the current folder lies in it" });
  }
  if (files.length > 0 && !files.includes(MARKER) && !force) {
    return yield* new BundleError({
      file: out,
      problem: `holds ${files.length} files that were not made by sau`,
      expected: `a new or empty folder, or one with ${MARKER}`,
      hint: "Choose another output folder, or overwrite this one with --force.",
    });
  }
  return true;
});

/** Bytes that an item takes, nearly. */
const sizeOf = Effect.fnUntraced(function* (bundle: Bundle, item: Item) {
  if ("from" in item) return (yield* system(item.from, "cannot be read", () => stat(item.from))).size;
  return typeof item.content === "string" ? item.content.length : (yield* partOf(bundle, item.content.part)).size;
});

/** Writes every item into `folder`; gives the hashes of the parts. */
const writeItems = Effect.fnUntraced(function* (bundle: Bundle, items: readonly Item[], folder: string) {
  const disk = yield* Disk;
  const written = new Map<BundlePart, { readonly path: string; readonly sha256: string }[]>();
  for (const item of items) {
    const { to } = item;
    const path = join(folder, to);
    yield* writing(path, () => mkdir(dirname(path), { recursive: true }));
    if ("content" in item) {
      const { content } = item;
      if (typeof content === "string") yield* writing(path, () => disk.writeFile(path, content));
      else {
        const part = yield* partOf(bundle, content.part);
        yield* writePart(bundle, part, path);
        written.set(content.part, [{ path, sha256: yield* hashFile(path) }]);
      }
      continue;
    }
    const { from, weights } = item;
    const changed = weights === undefined ? [] : [...bundle.changed.get(weights.part)?.keys() ?? []];
    let sha256 = weights?.file.sha256 ?? "";
    if (weights === undefined || !changed.some((key) => weights.file.header.entries.has(key))) {
      yield* writing(path, () => disk.copyFile(from, path));
    } else {
      // Copied and written over in place: a file of gigabytes is never in memory.
      const patches = yield* changedBytes(bundle, yield* partOf(bundle, weights.part), weights.file);
      yield* withWeights(weights.file, () => writing(path, () => disk.copyFile(from, path)));
      yield* writing(path, () => disk.patchFile(path, patches));
      sha256 = yield* hashFile(path);
    }
    if (weights !== undefined) {
      written.set(weights.part, [...written.get(weights.part) ?? [], { path, sha256 }]);
    }
  }
  const sha256 = new Map([...written].map(([part, files]) => [part, hashOf(files)] as const));
  const marker = {
    made_by: "sau",
    input: Object.fromEntries(bundle.hashes),
    weights: Object.fromEntries(sha256),
    changed: Object.fromEntries([...bundle.changed].map(([part, values]) => [part, [...values.keys()]])),
  };
  const path = join(folder, MARKER);
  yield* writing(path, () => disk.writeFile(path, `${JSON.stringify(marker, null, 2)}\n`));
  return sha256;
});

/** Puts the finished folder in place. What stood there is moved aside first, and comes back when that fails. */
const moveIn = (made: string, out: string, replace: boolean): Effect.Effect<void, BundleError> =>
  writing(out, async () => {
    if (!replace) return await rename(made, out);
    const old = `${made}.old`;
    await rename(out, old);
    try {
      await rename(made, out);
    } catch (e) {
      await rename(old, out);
      throw e;
    }
    await rm(old, { recursive: true, force: true });
  });

/**
 * Writes the model with its changes in the form in which it came: a complete diffusers folder, or one file. It is made
 * beside `out` under another name and renamed at the end; when anything fails, or the program is interrupted, nothing is
 * left of it.
 * @param out a new or empty folder, or one made here before; with `force` any folder that does not hold the input. Of a
 * checkpoint in one file a new file, with `force` any but the input; `.safetensors` is added where it is missing
 */
export const saveBundle = Effect.fn("saveBundle")(function* (
  bundle: Bundle,
  out: string,
  options: { readonly force?: boolean } = {},
): Effect.fn.Return<Saved, BundleError> {
  if (bundle.checkpoint !== undefined) {
    const { file, sha256 } = yield* saveCheckpoint(bundle, bundle.checkpoint, out, options.force ?? false);
    return {
      folder: file,
      sha256: new Map(partsOf(bundle).map(([name]) => [name, sha256])),
      leftOut: [],
      exported: [],
    };
  }
  const target = resolve(out);
  const replace = yield* checkOut(bundle, target, options.force ?? false);
  for (const [, part] of partsOf(bundle)) yield* checkChanges(bundle, part);
  const { items, leftOut } = yield* contents(bundle);
  const parent = dirname(target);
  const disk = yield* Disk;
  return yield* Effect.acquireUseRelease(
    writing(parent, async () => {
      const created = await mkdir(parent, { recursive: true });
      return { created, folder: await mkdtemp(join(parent, `.${basename(target)}.sau-`)) };
    }),
    ({ folder }) =>
      Effect.gen(function* () {
        let need = 0;
        for (const item of items) need += yield* sizeOf(bundle, item);
        const room = yield* Effect.promise(() => disk.room(parent));
        if (room !== undefined && room < need) return yield* noRoom(target, need, room);
        const sha256 = yield* writeItems(bundle, items, folder);
        yield* moveIn(folder, target, replace);
        return { folder: target, sha256, leftOut, exported: exportNotes(bundle) };
      }),
    ({ created, folder }, exit) =>
      Effect.promise(async () => {
        if (Exit.isSuccess(exit)) return;
        await rm(folder, { recursive: true, force: true });
        // Parent folders made for this, as far as nobody else has put something there meanwhile.
        for (let at = parent; created !== undefined && isInside(at, created); at = dirname(at)) {
          await rmdir(at).catch(() => undefined);
        }
      }),
  );
});
