/** Writing, behind one reference, so that a full disk can be tried out. */
import { Context, Effect } from "effect";
import { chmod, copyFile, open, statfs, writeFile } from "node:fs/promises";
import { BundleError } from "./errors.ts";
import { codeOf } from "./files.ts";

/** New bytes, and at which byte of the file they begin. */
export interface Patch {
  readonly at: number;
  readonly bytes: Uint8Array;
}

export interface DiskCalls {
  /** Pieces are written one after the other, and no more than one is in memory at once. */
  readonly writeFile: (path: string, data: Uint8Array | string | AsyncIterable<Uint8Array>) => Promise<void>;
  readonly copyFile: (from: string, to: string) => Promise<void>;
  /** Writes over an existing file at some places. */
  readonly patchFile: (path: string, patches: readonly Patch[]) => Promise<void>;
  /** Bytes that may be written where `path` lies, or undefined when the system does not say. */
  readonly room: (path: string) => Promise<number | undefined>;
}

const patchFile = async (path: string, patches: readonly Patch[]): Promise<void> => {
  // A copy of a write-protected file is write-protected, too.
  await chmod(path, 0o644);
  const handle = await open(path, "r+");
  try {
    for (const { at, bytes } of patches) {
      for (let done = 0; done < bytes.length;) {
        done += (await handle.write(bytes, done, bytes.length - done, at + done)).bytesWritten;
      }
    }
  } finally {
    await handle.close();
  }
};

/** The calls that write. Default: the file system. */
export const Disk: Context.Reference<DiskCalls> = Context.Reference<DiskCalls>("sau/diffusion/Disk", {
  defaultValue: () => ({
    writeFile,
    copyFile,
    patchFile,
    room: (path) => statfs(path).then((s) => Number(s.bavail) * Number(s.bsize)).catch(() => undefined),
  }),
});

/** The error of a disk without room for what is to be written. */
export const noRoom = (file: string, need?: number, room?: number): BundleError =>
  new BundleError({
    file,
    problem: "cannot be written: no room left on the disk",
    ...(need === undefined ? {} : { expected: `${megabytes(need)} free, and there are ${megabytes(room ?? 0)}` }),
    hint: "Free some space, or choose an output folder on another disk. Nothing was left behind.",
  });

const megabytes = (bytes: number): string => `${Math.ceil(bytes / 1e6)} MB`;

/**
 * One call that writes `file`. It is not interrupted half-way, so that whoever cleans up afterwards finds nothing in the
 * making.
 */
export const writing = <A>(file: string, call: () => Promise<A>): Effect.Effect<A, BundleError> =>
  Effect.uninterruptible(Effect.tryPromise({
    try: call,
    catch: (e) => {
      // What is written may be read from another file as it goes.
      if (e instanceof BundleError) return e;
      const code = codeOf(e);
      if (code === "ENOSPC" || code === "EDQUOT") return noRoom(file);
      const why = code === "EACCES" || code === "EPERM"
        ? "no permission"
        : code === "EROFS"
        ? "the disk is read-only"
        : code ?? (e instanceof Error ? e.message : String(e));
      return new BundleError({ file, problem: `cannot be written: ${why}` });
    },
  }));
