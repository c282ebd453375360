/** One pass over a weights file in bounded memory: its SHA-256, and every value that is no finite number. */
import { Effect } from "effect";
import { createHash } from "node:crypto";
import type { FileHandle } from "node:fs/promises";
import type { Entry, FileDType } from "../tensor/safetensors.ts";
import { readFully } from "./files.ts";

/** Largest piece in memory, in bytes; a multiple of every element's width. */
const PIECE = 1 << 24;

/** Values that are infinite or not a number: all bits of the exponent are set. */
const countNonFinite = (dtype: FileDType, bytes: Uint8Array): number => {
  const count = (words: Uint16Array | Uint32Array, mask: number): number => {
    let n = 0;
    for (let i = 0; i < words.length; i++) if ((words[i] & mask) === mask) n++;
    return n;
  };
  switch (dtype) {
    case "F16":
      return count(new Uint16Array(bytes.buffer, 0, bytes.length / 2), 0x7c00);
    case "BF16":
      return count(new Uint16Array(bytes.buffer, 0, bytes.length / 2), 0x7f80);
    case "F32":
      return count(new Uint32Array(bytes.buffer, 0, bytes.length / 4), 0x7f800000);
    case "F64":
      return new Float64Array(bytes.buffer, 0, bytes.length / 8).reduce((n, v) => Number.isFinite(v) ? n : n + 1, 0);
    default:
      return 0;
  }
};

export interface Scan {
  readonly sha256: string;
  /** Number of non-finite values by tensor; tensors without any are left out. */
  readonly nonFinite: ReadonlyMap<string, number>;
}

/**
 * Scans an open file of weights: every byte once, and again what several entries share.
 * @param entries in the order of their bytes; what lies between them is hashed alone
 */
export const scanWeights = Effect.fnUntraced(function* (
  handle: FileHandle,
  path: string,
  size: number,
  entries: Iterable<readonly [string, Entry]>,
) {
  const hash = createHash("sha256");
  const nonFinite = new Map<string, number>();
  // A buffer of its own, so that a piece always starts at an aligned address whatever its offset in the file.
  const buffer = new Uint8Array(PIECE);
  const pieces = function* (begin: number, end: number) {
    for (let at = begin; at < end; at += PIECE) yield [at, buffer.subarray(0, Math.min(PIECE, end - at))] as const;
  };
  const hashUpTo = Effect.fnUntraced(function* (from: number, to: number) {
    for (const [at, piece] of pieces(from, to)) {
      yield* readFully(handle, path, piece, at);
      hash.update(piece);
    }
  });
  let hashed = 0;
  for (const [key, { dtype, begin, end }] of entries) {
    yield* hashUpTo(hashed, begin);
    const isNew = begin >= hashed;
    if (isNew) hashed = end;
    let bad = 0;
    for (const [at, piece] of pieces(begin, end)) {
      yield* readFully(handle, path, piece, at);
      if (isNew) hash.update(piece);
      bad += countNonFinite(dtype, piece);
    }
    if (bad > 0) nonFinite.set(key, bad);
  }
  yield* hashUpTo(hashed, size);
  const scan: Scan = { sha256: hash.digest("hex"), nonFinite };
  return scan;
});
