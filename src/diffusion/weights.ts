/** The bytes of a part's weights, with changes patched in, and where each tensor lies in them. */
import { Effect } from "effect";
import type { WeightPlace } from "../graph/mod.ts";
import type { DType, Tensor } from "../tensor/tensor.ts";
import {
  encodeAs,
  type FileDType,
  type Header,
  parseHeader,
  readTensor,
  widthOf,
  write,
} from "../tensor/safetensors.ts";
import { BundleError } from "./errors.ts";
import { readFully, system, withFile } from "./files.ts";
import { keyIn } from "./keys.ts";
import { type Part, type PartName, tensors } from "./part.ts";
import { Shared } from "./shared.ts";
import { bytesOf, type WeightsFile } from "./weights_file.ts";

/** Anything that has parts: a Bundle, or a scoring CLIP. */
export interface PartSource {
  readonly parts: Readonly<Partial<Record<PartName, Part>>>;
  /** New values by part and key, over those of the files. */
  readonly changed: ReadonlyMap<PartName, ReadonlyMap<string, Tensor>>;
}

/** A part's weights for a graph: the bytes to hand to the runtime, and where each weight lies in them. */
export interface PartWeights {
  readonly external: ReadonlyArray<{ readonly path: string; readonly data: Uint8Array }>;
  /** @throws BundleError when the file holds no such tensor. */
  readonly locate: (name: string) => WeightPlace;
}

const dtypes: Readonly<Partial<Record<FileDType, DType>>> = {
  F32: "float32",
  F16: "float16",
  I32: "int32",
  I64: "int64",
  U8: "uint8",
  BOOL: "bool",
};

const partOf = (source: PartSource, name: PartName): Effect.Effect<Part, BundleError> => {
  const part = source.parts[name];
  return part === undefined
    ? Effect.fail(new BundleError({ file: name, problem: "is no part of this model" }))
    : Effect.succeed(part);
};

/** Turns a matrix of `rows` × `columns` elements, each of `width` bytes, over in place. */
const transpose = (bytes: Uint8Array, rows: number, columns: number, width: number): void => {
  const old = bytes.slice();
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      const from = (i * columns + j) * width;
      bytes.set(old.subarray(from, from + width), (j * rows + i) * width);
    }
  }
};

/**
 * A file's share of a part as it lies on disk, for reading only: others may read the same bytes (`Shared`). Fails when the
 * file was changed since it was opened.
 */
const fileBytes = (part: Part, file: WeightsFile): Effect.Effect<Uint8Array, BundleError> =>
  withFile(file.path, (handle) =>
    Effect.gen(function* () {
      const { size, mtimeMs } = yield* system(file.path, "cannot be read", () => handle.stat());
      if (size !== file.size || mtimeMs !== file.modified) {
        return yield* new BundleError({
          file: file.path,
          problem: "was changed while it was in use",
          hint: "Start again.",
        });
      }
      const shared = yield* Shared;
      const state = `${part.name} ${file.path} ${size} ${mtimeMs}`;
      const kept = shared?.get(state);
      if (kept !== undefined) return kept;
      const length = bytesOf(file);
      const bytes = yield* Effect.try({
        try: () => new Uint8Array(length),
        catch: () =>
          new BundleError({ file: file.path, problem: `has ${length} bytes, more than fit into one piece of memory` }),
      });
      let at = 0;
      for (const { begin, end } of file.stretches) {
        yield* readFully(handle, file.path, bytes.subarray(at, at += end - begin), begin);
      }
      for (const key of file.transposed) {
        const entry = file.header.entries.get(key);
        if (entry === undefined) continue;
        const [rows, columns] = entry.dims;
        transpose(bytes.subarray(entry.begin, entry.end), columns, rows, widthOf(entry.dtype));
      }
      shared?.put(state, bytes);
      return bytes;
    }));

/** A file's share of a part with the part's changes in it, for reading only. */
export const changedBytes = Effect.fnUntraced(function* (
  source: PartSource,
  part: Part,
  file: WeightsFile,
): Effect.fn.Return<Uint8Array, BundleError> {
  const original = yield* fileBytes(part, file);
  const changed = [...source.changed.get(part.name) ?? []].filter(([key]) => file.header.entries.has(key));
  if (changed.length === 0) return original;
  const bytes = (yield* Shared) === undefined ? original : original.slice();
  for (const [key, value] of changed) {
    const encoded = yield* tensors(() => encodeAs(file.header, key, value));
    const entry = file.header.entries.get(key);
    if (entry !== undefined) bytes.set(encoded, entry.begin);
  }
  return bytes;
});

/** Fails when a change is of no tensor of the part. */
export const checkChanges = (source: PartSource, part: Part): Effect.Effect<void, BundleError> => {
  const lost = [...source.changed.get(part.name)?.keys() ?? []].find((key) => !part.header.entries.has(key));
  return lost === undefined
    ? Effect.void
    : Effect.fail(new BundleError({ file: part.file, key: lost, problem: `holds no tensor ${lost}` }));
};

/** Each file's share of a part's weights with the changes in it, for reading only. */
const piecesOf = Effect.fnUntraced(function* (source: PartSource, part: Part) {
  yield* checkChanges(source, part);
  const pieces: { readonly file: WeightsFile; readonly bytes: Uint8Array }[] = [];
  for (const file of part.files) pieces.push({ file, bytes: yield* changedBytes(source, part, file) });
  return pieces;
});

/**
 * A part's weights with the changes patched in, for reading only, where the part's header says; of one file every other byte
 * is that file's.
 */
export const weightsBytes = Effect.fn("weightsBytes")(function* (
  source: PartSource,
  name: PartName,
): Effect.fn.Return<Uint8Array, BundleError> {
  const pieces = yield* piecesOf(source, yield* partOf(source, name));
  if (pieces.length === 1) return pieces[0].bytes;
  const all = new Uint8Array(pieces.reduce((n, { bytes }) => n + bytes.length, 0));
  let at = 0;
  for (const { bytes } of pieces) {
    all.set(bytes, at);
    at += bytes.length;
  }
  return all;
});

/** The same tensors in float32, for types that no graph takes. */
const asFloat32 = (bytes: Uint8Array, header: Header): { bytes: Uint8Array; header: Header } => {
  const wide = write(new Map([...header.entries.keys()].map((key) => [key, readTensor(bytes, header, key)])));
  return { bytes: wide, header: parseHeader(wide, wide.length, header.file) };
};

/** A part's weights, ready for the graphs of its network. */
export const partWeights = Effect.fn("partWeights")(function* (
  source: PartSource,
  name: PartName,
): Effect.fn.Return<PartWeights, BundleError> {
  const part = yield* partOf(source, name);
  const pieces: { readonly path: string; readonly bytes: Uint8Array; readonly header: Header }[] = [];
  for (const { file, bytes } of yield* piecesOf(source, part)) {
    const foreign = [...file.header.entries.values()].some((entry) => dtypes[entry.dtype] === undefined);
    const piece = foreign ? yield* tensors(() => asFloat32(bytes, file.header)) : { bytes, header: file.header };
    pieces.push({ path: `${name}${pieces.length === 0 ? "" : `-${pieces.length}`}.safetensors`, ...piece });
  }
  return {
    external: pieces.map(({ path, bytes }) => ({ path, data: bytes })),
    locate: (weight) => {
      for (const { path, header } of pieces) {
        const key = keyIn(header, weight);
        const entry = key === undefined ? undefined : header.entries.get(key);
        const dtype = entry && dtypes[entry.dtype];
        if (entry !== undefined && dtype !== undefined) {
          return { path, offset: entry.begin, length: entry.end - entry.begin, dtype, dims: entry.dims };
        }
      }
      throw new BundleError({ file: part.file, key: weight, problem: `holds no tensor ${weight}` });
    },
  };
});

/** Tensors of a part as float32, changes included, by the names that the network gives them. The file is read once. */
export const readWeights = Effect.fn("readWeights")(function* (
  source: PartSource,
  name: PartName,
  weights: readonly string[],
): Effect.fn.Return<Tensor[], BundleError> {
  const part = yield* partOf(source, name);
  const pieces = yield* piecesOf(source, part);
  const found: Tensor[] = [];
  for (const weight of weights) {
    const key = keyIn(part.header, weight);
    const piece = key === undefined ? undefined : pieces.find(({ file }) => file.header.entries.has(key));
    if (key === undefined || piece === undefined) {
      return yield* new BundleError({ file: part.file, key: weight, problem: `holds no tensor ${weight}` });
    }
    found.push(yield* tensors(() => readTensor(piece.bytes, piece.file.header, key)));
  }
  return found;
});
