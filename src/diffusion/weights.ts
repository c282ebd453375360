/** The bytes of a part's weights, with changes patched in, and where each tensor lies in them. */
import { Effect } from "effect";
import type { WeightPlace } from "../graph/mod.ts";
import type { DType, Tensor } from "../tensor/tensor.ts";
import { encodeAs, type FileDType, type Header, parseHeader, readTensor, write } from "../tensor/safetensors.ts";
import { BundleError } from "./errors.ts";
import { readFully, system, withFile } from "./files.ts";
import { keyIn } from "./keys.ts";
import { type Part, type PartName, tensors } from "./part.ts";
import { Shared } from "./shared.ts";

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

/**
 * A part's file as it lies on disk, for reading only: others may read the same bytes (`Shared`). Fails when it was changed
 * since it was opened.
 */
export const partBytes = (part: Part): Effect.Effect<Uint8Array, BundleError> =>
  withFile(part.file, (handle) =>
    Effect.gen(function* () {
      const { size, mtimeMs } = yield* system(part.file, "cannot be read", () => handle.stat());
      if (size !== part.size || mtimeMs !== part.modified) {
        return yield* new BundleError({
          file: part.file,
          problem: "was changed while it was in use",
          hint: "Start again.",
        });
      }
      const shared = yield* Shared;
      const state = `${part.file} ${size} ${mtimeMs}`;
      const kept = shared?.get(state);
      if (kept !== undefined) return kept;
      const bytes = yield* Effect.try({
        try: () => new Uint8Array(size),
        catch: () =>
          new BundleError({ file: part.file, problem: `has ${size} bytes, more than fit into one piece of memory` }),
      });
      yield* readFully(handle, part.file, bytes, 0);
      shared?.put(state, bytes);
      return bytes;
    }));

/** A part's weights file with the changes patched in, for reading only; every other byte is the input file's. */
export const weightsBytes = Effect.fn("weightsBytes")(function* (
  source: PartSource,
  name: PartName,
): Effect.fn.Return<Uint8Array, BundleError> {
  const part = yield* partOf(source, name);
  const original = yield* partBytes(part);
  const changed = source.changed.get(name);
  if (changed === undefined || changed.size === 0) return original;
  const bytes = (yield* Shared) === undefined ? original : original.slice();
  for (const [key, value] of changed) {
    const encoded = yield* tensors(() => encodeAs(part.header, key, value));
    const entry = part.header.entries.get(key);
    if (entry !== undefined) bytes.set(encoded, entry.begin);
  }
  return bytes;
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
  const original = yield* weightsBytes(source, name);
  const foreign = [...part.header.entries.values()].some((entry) => dtypes[entry.dtype] === undefined);
  const { bytes, header } = foreign
    ? yield* tensors(() => asFloat32(original, part.header))
    : { bytes: original, header: part.header };
  const path = `${name}.safetensors`;
  return {
    external: [{ path, data: bytes }],
    locate: (weight) => {
      const key = keyIn(header, weight);
      const entry = key === undefined ? undefined : header.entries.get(key);
      const dtype = entry && dtypes[entry.dtype];
      if (entry === undefined || dtype === undefined) {
        throw new BundleError({ file: part.file, key: weight, problem: `holds no tensor ${weight}` });
      }
      return { path, offset: entry.begin, length: entry.end - entry.begin, dtype, dims: entry.dims };
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
  const bytes = yield* weightsBytes(source, name);
  const found: Tensor[] = [];
  for (const weight of weights) {
    const key = keyIn(part.header, weight);
    if (key === undefined) {
      return yield* new BundleError({ file: part.file, key: weight, problem: `holds no tensor ${weight}` });
    }
    found.push(yield* tensors(() => readTensor(bytes, part.header, key)));
  }
  return found;
});
