/**
 * A changed checkpoint as one file again: byte for byte the one that came, but for the changed tensors. Complete or not there at
 * all, and never in place of the file that it came from.
 */
import { Effect } from "effect";
import { lstat, mkdir, mkdtemp, realpath, rename, rm } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { encodeAs } from "../../tensor/safetensors.ts";
import { size } from "../../tensor/tensor.ts";
import { type Bundle, partsOf } from "../bundle.ts";
import { Disk, noRoom, type Patch, writing } from "../disk.ts";
import { BundleError } from "../errors.ts";
import { hashFile, system } from "../files.ts";
import { keyIn } from "../keys.ts";
import type { Part } from "../part.ts";
import { changedBytes, checkChanges, patchesFor, readWeights, withWeights } from "../weights.ts";
import { tensors } from "../weights_file.ts";
import type { Checkpoint } from "./open.ts";

/** What is to be written over: changed tensors, and all of a part that was taken from elsewhere. */
const patchesOf = Effect.fnUntraced(function* (bundle: Bundle, { parts }: Checkpoint) {
  const patches: Patch[] = [];
  for (const [name, now] of partsOf(bundle)) {
    const own = parts[name];
    if (own === undefined) continue;
    const [file] = own.files;
    if (now.file === own.file) {
      yield* checkChanges(bundle, own);
      patches.push(...yield* changedBytes(bundle, own, file));
      continue;
    }
    // Position ids are no weights, and folders may hold none.
    const names = [...file.header.entries.keys()].filter((key) => !key.endsWith("position_ids"));
    const sizeIn = (part: Part, key: string | undefined) =>
      key === undefined ? undefined : size(part.header.entries.get(key)?.dims ?? []);
    const lost = names.find((key) => sizeIn(now, keyIn(now.header, key)) !== sizeIn(own, key));
    if (lost !== undefined) {
      return yield* new BundleError({
        file: now.file,
        key: lost,
        problem: `has no ${lost} of the shape that the checkpoint has room for`,
        hint: "A part from elsewhere goes into a checkpoint only where both are of one kind.",
      });
    }
    const values = yield* readWeights(bundle, name, names);
    const bytes = yield* tensors(() =>
      new Map(names.map((key, i) => {
        const dims = file.header.entries.get(key)?.dims ?? [];
        return [key, encodeAs(file.header, key, { dims, data: values[i].data })];
      }))
    );
    patches.push(...patchesFor(file, bytes));
  }
  return patches;
});

/** Refuses a place that would endanger something. */
const checkOut = Effect.fnUntraced(function* (checkpoint: Checkpoint, out: string, force: boolean) {
  const info = yield* Effect.promise(() => lstat(out).catch(() => undefined));
  if (info === undefined) return;
  if (!info.isFile()) {
    return yield* new BundleError({
      file: out,
      problem: "cannot be the output: it is a folder or a link",
      expected: "a new file",
    });
  }
  const [real, input] = yield* system(
    out,
    "cannot be read",
    () => Promise.all([realpath(out), realpath(checkpoint.file.path)]),
  );
  if (real === input) {
    return yield* new BundleError({
      file: out,
      problem: "cannot be the output: it is the checkpoint that is read",
      hint: "The input is never written to. Choose another file.",
    });
  }
  if (!force) {
    return yield* new BundleError({
      file: out,
      problem: "is there already",
      expected: "a new file",
      hint: "Choose another output file, or overwrite this one with --force.",
    });
  }
});

/** The file's path: `.safetensors` is added where it is missing. */
export const checkpointPath = (out: string): string => /\.safetensors$/i.test(out) ? out : `${out}.safetensors`;

/**
 * Writes the checkpoint with the model's changes. It is made beside `out` under another name and renamed at the end.
 * @param out a new file; with `force` any file but the input
 * @returns its path and its SHA-256
 */
export const saveCheckpoint = Effect.fn("saveCheckpoint")(function* (
  bundle: Bundle,
  checkpoint: Checkpoint,
  out: string,
  force: boolean,
): Effect.fn.Return<{ readonly file: string; readonly sha256: string }, BundleError> {
  const target = checkpointPath(resolve(out));
  yield* checkOut(checkpoint, target, force);
  const { parts, file: { path: from, size: length } } = checkpoint;
  const patches = yield* patchesOf(bundle, checkpoint);
  const disk = yield* Disk;
  const parent = dirname(target);
  return yield* Effect.acquireUseRelease(
    writing(parent, async () => {
      await mkdir(parent, { recursive: true });
      return await mkdtemp(join(parent, `.${basename(target)}.sau-`));
    }),
    (folder) =>
      Effect.gen(function* () {
        const room = yield* Effect.promise(() => disk.room(parent));
        if (room !== undefined && room < length) return yield* noRoom(target, length, room);
        const made = join(folder, basename(target));
        yield* withWeights(parts.unet.files[0], () => writing(target, () => disk.copyFile(from, made)));
        yield* writing(target, () => disk.patchFile(made, patches));
        const sha256 = yield* hashFile(made);
        yield* writing(target, () => rename(made, target));
        return { file: target, sha256 };
      }),
    (folder) => Effect.promise(() => rm(folder, { recursive: true, force: true })),
  );
});
