/**
 * A changed checkpoint as one file again: byte for byte the one that came, but for the changed tensors. Complete or not there at
 * all, and never in place of the file that it came from.
 */
import { Effect } from "effect";
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { chmod, lstat, mkdir, mkdtemp, open, realpath, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { encodeAs } from "../../tensor/safetensors.ts";
import { size, type Tensor } from "../../tensor/tensor.ts";
import type { Bundle } from "../bundle.ts";
import { Disk, noRoom, writing } from "../disk.ts";
import { BundleError } from "../errors.ts";
import { system } from "../files.ts";
import { keyIn } from "../keys.ts";
import type { Part } from "../part.ts";
import { readWeights } from "../weights.ts";
import { tensors, type WeightsFile } from "../weights_file.ts";
import type { Checkpoint } from "./open.ts";

/** Bytes for a place in the file. */
interface Patch {
  readonly at: number;
  readonly bytes: Uint8Array;
}

/** Where a byte of a part's memory lies in the file. */
const placeOf = ({ stretches }: WeightsFile, position: number): number => {
  let before = 0;
  for (const { begin, end } of stretches) {
    if (position < before + end - begin) return begin + position - before;
    before += end - begin;
  }
  return stretches.at(-1)?.end ?? 0;
};

const turned = ({ dims: [rows, columns], data }: Tensor): Tensor => {
  const out = new Float32Array(data.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) out[j * rows + i] = data[i * columns + j];
  return { dims: [columns, rows], data: out };
};

/** New values of one of the file's tensors, as bytes for their place. */
const patchOf = (part: Part, key: string, value: Tensor): Effect.Effect<Patch, BundleError> =>
  Effect.gen(function* () {
    const [file] = part.files;
    const entry = file.header.entries.get(key);
    if (entry === undefined) {
      return yield* new BundleError({ file: part.file, key, problem: `holds no tensor ${key}` });
    }
    const at = placeOf(file, entry.begin);
    if (!file.transposed.has(key)) {
      return { at, bytes: yield* tensors(() => encodeAs(file.header, key, value)) };
    }
    const dims = entry.dims.toReversed();
    const header = { ...file.header, entries: new Map([[key, { ...entry, dims }]]) };
    return { at, bytes: yield* tensors(() => encodeAs(header, key, turned(value))) };
  });

const patchesOf = Effect.fnUntraced(function* (bundle: Bundle, { parts }: Checkpoint) {
  const patches: Patch[] = [];
  for (const name of ["unet", "text_encoder", "vae"] as const) {
    const own = parts[name];
    const now = bundle.parts[name];
    if (now === own) {
      for (const [key, value] of bundle.changed.get(name) ?? []) patches.push(yield* patchOf(own, key, value));
      continue;
    }
    // A part from elsewhere: all of its values. Position ids are no weights, and folders may hold none.
    const names = [...own.header.entries.keys()].filter((key) => !key.endsWith("position_ids"));
    const lost = names.find((key) => {
      const found = keyIn(now.header, key);
      const dims = found === undefined ? undefined : now.header.entries.get(found)?.dims;
      return dims === undefined || size(dims) !== size(own.header.entries.get(key)?.dims ?? []);
    });
    if (lost !== undefined) {
      return yield* new BundleError({
        file: now.file,
        key: lost,
        problem: `has no ${lost} of the shape that the checkpoint has room for`,
        hint: "A part from elsewhere goes into a checkpoint only where both are of one kind.",
      });
    }
    const values = yield* readWeights(bundle, name, names);
    for (const [i, key] of names.entries()) {
      const dims = own.header.entries.get(key)?.dims ?? values[i].dims;
      patches.push(yield* patchOf(own, key, { dims, data: values[i].data }));
    }
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

const hashFile = async (path: string): Promise<string> => {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 22 })) hash.update(chunk);
  return hash.digest("hex");
};

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
  const { path: from, size: length, modified } = checkpoint.file;
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
        yield* writing(target, () => disk.copyFile(from, made));
        const state = yield* system(from, "cannot be read", () => stat(from));
        if (state.size !== length || state.mtimeMs !== modified) {
          return yield* new BundleError({
            file: from,
            problem: "was changed while it was in use",
            hint: "Start again.",
          });
        }
        yield* writing(target, async () => {
          // The copy has the input's mode, which may forbid writing.
          await chmod(made, 0o644);
          const handle = await open(made, "r+");
          try {
            for (const { at, bytes } of patches) {
              for (let done = 0; done < bytes.length;) {
                const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, at + done);
                done += bytesWritten;
              }
            }
          } finally {
            await handle.close();
          }
        });
        const sha256 = yield* system(made, "cannot be read", () => hashFile(made));
        yield* writing(target, () => rename(made, target));
        return { file: target, sha256 };
      }),
    (folder) => Effect.promise(() => rm(folder, { recursive: true, force: true })),
  );
});
