/** The bytes of a part's weights, with changes patched in, and where each tensor lies in them. */
import { Effect } from "effect";
import { type FileHandle, realpath } from "node:fs/promises";
import { basename, dirname } from "node:path";
import type { WeightPlace } from "../graph/mod.ts";
import type { DType, Tensor } from "../tensor/tensor.ts";
import {
  decodeAs,
  encodeAs,
  type FileDType,
  type Header,
  parseHeader,
  readTensor,
  write,
} from "../tensor/safetensors.ts";
import type { Patch } from "./disk.ts";
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

/** A part's weights for a graph: what to hand to the runtime, and where each weight lies in it. */
export interface PartWeights {
  readonly external: ReadonlyArray<{ readonly path: string; readonly data: Uint8Array }>;
  /** Where the runtime reads the rest by itself, and how many bytes that are. */
  readonly folder?: { readonly path: string; readonly bytes: number };
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

/** A part's file opened for reading. Fails when it was changed since the model was opened. */
export const withPart = <A>(part: Part, use: (handle: FileHandle) => Effect.Effect<A, BundleError>) =>
  withFile(part.file, (handle) =>
    Effect.gen(function* () {
      const { size, mtimeMs } = yield* system(part.file, "cannot be read", () => handle.stat());
      if (size === part.size && mtimeMs === part.modified) return yield* use(handle);
      return yield* new BundleError({
        file: part.file,
        problem: "was changed while it was in use",
        hint: "Start again.",
      });
    }));

const stateOf = (part: Part): string => `${part.file} ${part.size} ${part.modified}`;

/** A part's file as it lies on disk, for reading only: others may read the same bytes (`Shared`). */
export const partBytes = (part: Part): Effect.Effect<Uint8Array, BundleError> =>
  withPart(part, (handle) =>
    Effect.gen(function* () {
      const { size } = part;
      const shared = yield* Shared;
      const kept = shared?.get(stateOf(part));
      if (kept !== undefined) return kept;
      const bytes = yield* Effect.try({
        try: () => new Uint8Array(size),
        catch: () =>
          new BundleError({ file: part.file, problem: `has ${size} bytes, more than fit into one piece of memory` }),
      });
      yield* readFully(handle, part.file, bytes, 0);
      shared?.put(stateOf(part), bytes);
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
  for (const { at, bytes: encoded } of yield* changedBytes(source, name)) bytes.set(encoded, at);
  return bytes;
});

/** The changed tensors of a part as its file holds them, and at which byte each begins there. */
export const changedBytes = Effect.fnUntraced(function* (source: PartSource, name: PartName) {
  const { header } = yield* partOf(source, name);
  return yield* tensors(() =>
    [...source.changed.get(name) ?? []].map(([key, value]): Patch => {
      const bytes = encodeAs(header, key, value);
      return { at: header.entries.get(key)?.begin ?? 0, bytes };
    })
  );
});

/** The same tensors in float32, for types that no graph takes. */
const asFloat32 = (bytes: Uint8Array, header: Header): { bytes: Uint8Array; header: Header } => {
  const wide = write(new Map([...header.entries.keys()].map((key) => [key, readTensor(bytes, header, key)])));
  return { bytes: wide, header: parseHeader(wide, wide.length, header.file) };
};

/** A weight's name in a graph, to its place in the bytes that the model calls `path`. */
const locator = (header: Header, path: string, changed?: ReadonlyMap<string, Uint8Array>) => (weight: string) => {
  const key = keyIn(header, weight);
  const entry = key === undefined ? undefined : header.entries.get(key);
  const dtype = entry && dtypes[entry.dtype];
  if (key === undefined || entry === undefined || dtype === undefined) {
    throw new BundleError({ file: header.file, key: weight, problem: `holds no tensor ${weight}` });
  }
  const bytes = changed?.get(key);
  const place: WeightPlace = {
    path,
    offset: entry.begin,
    length: entry.end - entry.begin,
    dtype,
    dims: entry.dims,
    ...(bytes === undefined ? {} : { bytes }),
  };
  return place;
};

/** A model holds at most this many bytes of changed weights in itself: protobuf ends at 2 GiB. */
const MOST_INLINE = 2 ** 30;

/** Weights that the runtime reads from the part's own file; the model holds the changed ones in itself. */
const weightsOnDisk = Effect.fnUntraced(function* (part: Part, changed: ReadonlyMap<string, Tensor>) {
  // A download cache holds links; ONNX Runtime wants the file itself, in the folder that it is given.
  const real = yield* withPart(part, () => system(part.file, "cannot be read", () => realpath(part.file)));
  const inline = yield* tensors(() =>
    new Map([...changed].map(([key, value]) => [key, encodeAs(part.header, key, value)]))
  );
  const weights: PartWeights = {
    external: [],
    folder: { path: dirname(real), bytes: part.size },
    locate: locator(part.header, basename(real), inline),
  };
  return weights;
});

/**
 * A part's weights, ready for the graphs of its network.
 * @param options `files`: the runtime reads weights from disk by itself.
 */
export const partWeights = Effect.fn("partWeights")(function* (
  source: PartSource,
  name: PartName,
  options: { readonly files?: boolean } = {},
): Effect.fn.Return<PartWeights, BundleError> {
  const part = yield* partOf(source, name);
  const foreign = [...part.header.entries.values()].some((entry) => dtypes[entry.dtype] === undefined);
  const changed = source.changed.get(name) ?? new Map<string, Tensor>();
  const size = [...changed.values()].reduce((bytes, { data }) => bytes + data.byteLength, 0);
  if (options.files && !foreign && size <= MOST_INLINE) return yield* weightsOnDisk(part, changed);
  const original = yield* weightsBytes(source, name);
  const { bytes, header } = foreign
    ? yield* tensors(() => asFloat32(original, part.header))
    : { bytes: original, header: part.header };
  const path = `${name}.safetensors`;
  return { external: [{ path, data: bytes }], locate: locator(header, path) };
});

/** Tensors of a part as float32, changes included, by the names that the network gives them. Only their bytes are read. */
export const readWeights = Effect.fn("readWeights")(function* (
  source: PartSource,
  name: PartName,
  weights: readonly string[],
): Effect.fn.Return<Tensor[], BundleError> {
  const part = yield* partOf(source, name);
  const changed = source.changed.get(name);
  const kept = (yield* Shared)?.get(stateOf(part));
  return yield* withPart(part, (handle) =>
    Effect.gen(function* () {
      const found: Tensor[] = [];
      for (const weight of weights) {
        const key = keyIn(part.header, weight);
        const entry = key === undefined ? undefined : part.header.entries.get(key);
        if (key === undefined || entry === undefined) {
          return yield* new BundleError({ file: part.file, key: weight, problem: `holds no tensor ${weight}` });
        }
        const value = changed?.get(key);
        let bytes = kept?.subarray(entry.begin, entry.end);
        if (value !== undefined) bytes = yield* tensors(() => encodeAs(part.header, key, value));
        if (bytes === undefined) {
          bytes = new Uint8Array(entry.end - entry.begin);
          yield* readFully(handle, part.file, bytes, entry.begin);
        }
        const own = bytes;
        found.push(yield* tensors(() => decodeAs(part.header, key, own)));
      }
      return found;
    }));
});
