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
  widthOf,
  write,
} from "../tensor/safetensors.ts";
import { turnedOver } from "../tensor/turn.ts";
import type { Patch } from "./disk.ts";
import { BundleError } from "./errors.ts";
import { readFully, system, withFile } from "./files.ts";
import { keyIn } from "./keys.ts";
import { type Part, type PartName, tensors } from "./part.ts";
import { Shared } from "./shared.ts";
import { bytesOf, placeIn, type WeightsFile } from "./weights_file.ts";

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

/** One of a part's files opened for reading. Fails when it was changed since the model was opened. */
export const withWeights = <A>(file: WeightsFile, use: (handle: FileHandle) => Effect.Effect<A, BundleError>) =>
  withFile(file.path, (handle) =>
    Effect.gen(function* () {
      const { size, mtimeMs } = yield* system(file.path, "cannot be read", () => handle.stat());
      if (size === file.size && mtimeMs === file.modified) return yield* use(handle);
      return yield* new BundleError({
        file: file.path,
        problem: "was changed while it was in use",
        hint: "Start again.",
      });
    }));

const stateOf = (part: Part, file: WeightsFile): string => `${part.name} ${file.path} ${file.size} ${file.modified}`;

/** A tensor's bytes as the network has them, of those in the file or the other way round. */
const turned = (file: WeightsFile, key: string, bytes: Uint8Array, to: "network" | "file"): Uint8Array => {
  const entry = file.header.entries.get(key);
  if (entry === undefined || !file.transposed.has(key)) return bytes;
  const [rows, columns] = to === "file" ? entry.dims : entry.dims.toReversed();
  return turnedOver(bytes, rows, columns, widthOf(entry.dtype));
};

/** A file's share of a part as the network has it, for reading only: others may read the same bytes (`Shared`). */
const fileBytes = (part: Part, file: WeightsFile): Effect.Effect<Uint8Array, BundleError> =>
  withWeights(file, (handle) =>
    Effect.gen(function* () {
      const shared = yield* Shared;
      const kept = shared?.get(stateOf(part, file));
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
        bytes.set(turned(file, key, bytes.slice(entry.begin, entry.end), "network"), entry.begin);
      }
      shared?.put(stateOf(part, file), bytes);
      return bytes;
    }));

/** Changed tensors that one of the part's files holds, in its element types; as the network has them. */
const encoded = (
  source: PartSource,
  part: Part,
  file: WeightsFile,
): Effect.Effect<Map<string, Uint8Array>, BundleError> =>
  tensors(() =>
    new Map(
      [...source.changed.get(part.name) ?? []].filter(([key]) => file.header.entries.has(key)).map((
        [key, value],
      ) => [key, encodeAs(file.header, key, value)]),
    )
  );

/** Fails when a change is of no tensor of the part. */
export const checkChanges = (source: PartSource, part: Part): Effect.Effect<void, BundleError> => {
  const lost = [...source.changed.get(part.name)?.keys() ?? []].find((key) => !part.header.entries.has(key));
  return lost === undefined
    ? Effect.void
    : Effect.fail(new BundleError({ file: part.file, key: lost, problem: `holds no tensor ${lost}` }));
};

/** Tensors of a file's share of a part, as bytes, at the places that the file has for them. */
export const patchesFor = (file: WeightsFile, values: ReadonlyMap<string, Uint8Array>): Patch[] =>
  [...values].map(([key, bytes]) => ({
    at: placeIn(file, file.header.entries.get(key)?.begin ?? 0),
    bytes: turned(file, key, bytes, "file"),
  }));

/** The changed tensors of one of a part's files as the file holds them, and at which byte each begins there. */
export const changedBytes = Effect.fnUntraced(function* (source: PartSource, part: Part, file: WeightsFile) {
  return patchesFor(file, yield* encoded(source, part, file));
});

/** One tensor of a part as its network has it, changed where it is, in its own element type. */
export const tensorOf = Effect.fnUntraced(function* (
  source: PartSource,
  part: Part,
  key: string,
): Effect.fn.Return<Uint8Array, BundleError> {
  const file = part.files.find(({ header }) => header.entries.has(key));
  if (file === undefined) {
    return yield* new BundleError({ file: part.file, key, problem: `holds no tensor ${key}` });
  }
  const value = source.changed.get(part.name)?.get(key);
  return value === undefined
    ? yield* withWeights(file, (handle) => tensorBytes(file, handle, key))
    : yield* tensors(() => encodeAs(file.header, key, value));
});

/** Each file's share of a part's weights with the changes in it, for reading only. */
const piecesOf = Effect.fnUntraced(function* (source: PartSource, part: Part) {
  yield* checkChanges(source, part);
  const pieces: { readonly file: WeightsFile; readonly bytes: Uint8Array }[] = [];
  for (const file of part.files) {
    const original = yield* fileBytes(part, file);
    const changed = yield* encoded(source, part, file);
    const bytes = changed.size === 0 || (yield* Shared) === undefined ? original : original.slice();
    for (const [key, own] of changed) bytes.set(own, file.header.entries.get(key)?.begin ?? 0);
    pieces.push({ file, bytes });
  }
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

/** Tensors that the model knows under `path`. */
interface Located {
  readonly path: string;
  /** Tensors that stand there turned over. */
  readonly turned?: ReadonlySet<string>;
  readonly header: Header;
  /** Bytes that the model is to hold in itself. */
  readonly inline?: ReadonlyMap<string, Uint8Array>;
  /** Where a tensor's bytes begin, where it is not where the header says. */
  readonly at?: (begin: number) => number;
}

/** A weight's name in a graph, to its place in one of the files or pieces of memory. */
const locator = (part: Part, pieces: readonly Located[]) => (weight: string): WeightPlace => {
  for (const { path, header, inline, at, turned } of pieces) {
    const key = keyIn(header, weight);
    const entry = key === undefined ? undefined : header.entries.get(key);
    const dtype = entry && dtypes[entry.dtype];
    if (key === undefined || entry === undefined || dtype === undefined) continue;
    const bytes = inline?.get(key);
    return {
      path,
      offset: at === undefined ? entry.begin : at(entry.begin),
      length: entry.end - entry.begin,
      dtype,
      dims: entry.dims,
      ...(bytes === undefined ? turned?.has(key) ? { turned: true } : {} : { bytes }),
    };
  }
  throw new BundleError({ file: part.file, key: weight, problem: `holds no tensor ${weight}` });
};

/** A model holds at most this many bytes of weights in itself: protobuf ends at 2 GiB. */
const MOST_INLINE = 2 ** 30;

/** One tensor's bytes as the network has them, from an open file. */
const tensorBytes = Effect.fnUntraced(function* (file: WeightsFile, handle: FileHandle, key: string) {
  const { begin, end } = file.header.entries.get(key) ?? { begin: 0, end: 0 };
  const bytes = new Uint8Array(end - begin);
  yield* readFully(handle, file.path, bytes, placeIn(file, begin));
  return turned(file, key, bytes, "network");
});

/** Tensors that begin where their elements may not: an engine that maps the file could not read them in place. */
const misplaced = (file: WeightsFile): string[] =>
  [...file.header.entries].filter(([, { dtype, begin, end }]) =>
    begin !== end && placeIn(file, begin) % widthOf(dtype) !== 0
  ).map(([key]) => key);

/**
 * Weights that the runtime reads from the part's own files. The model turns over what a file has the other way round, and holds in
 * itself the changed ones and those at odd places, as within an ONNX file. Undefined when it cannot: when the latter are too
 * many, or when the files really lie in different folders (the runtime is given one).
 */
const weightsOnDisk = Effect.fnUntraced(function* (source: PartSource, part: Part) {
  yield* checkChanges(source, part);
  const pieces: Located[] = [];
  const folders = new Set<string>();
  let held = 0;
  for (const file of part.files) {
    const inline = yield* encoded(source, part, file);
    const odd = misplaced(file).filter((key) => !inline.has(key));
    for (const key of [...inline.keys(), ...odd]) {
      const { begin, end } = file.header.entries.get(key) ?? { begin: 0, end: 0 };
      held += end - begin;
    }
    if (held > MOST_INLINE) return undefined;
    // A download cache holds links; ONNX Runtime wants the file itself, in the folder that it is given.
    const real = yield* withWeights(file, (handle) =>
      Effect.gen(function* () {
        for (const key of odd) inline.set(key, yield* tensorBytes(file, handle, key));
        return yield* system(file.path, "cannot be read", () => realpath(file.path));
      }));
    // A file all of which the model holds in itself may lie elsewhere.
    if (inline.size < file.header.entries.size) folders.add(dirname(real));
    const at = (begin: number) => placeIn(file, begin);
    pieces.push({ path: basename(real), header: file.header, inline, turned: file.transposed, at });
  }
  const [path = dirname(part.file)] = folders;
  if (folders.size > 1) return undefined;
  const weights: PartWeights = {
    external: [],
    folder: { path, bytes: part.files.reduce((n, file) => n + bytesOf(file), 0) },
    locate: locator(part, pieces),
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
  const isForeign = (header: Header) => [...header.entries.values()].some((entry) => dtypes[entry.dtype] === undefined);
  if (options.files && !isForeign(part.header)) {
    const onDisk = yield* weightsOnDisk(source, part);
    if (onDisk !== undefined) return onDisk;
  }
  const pieces: (Located & { readonly bytes: Uint8Array })[] = [];
  for (const { file, bytes } of yield* piecesOf(source, part)) {
    const { header } = file;
    const piece = isForeign(header) ? yield* tensors(() => asFloat32(bytes, header)) : { bytes, header };
    pieces.push({ path: `${name}${pieces.length === 0 ? "" : `-${pieces.length}`}.safetensors`, ...piece });
  }
  return { external: pieces.map(({ path, bytes }) => ({ path, data: bytes })), locate: locator(part, pieces) };
});

/** Tensors of a part as float32, changes included, by the names that the network gives them. Only their bytes are read. */
export const readWeights = Effect.fn("readWeights")(function* (
  source: PartSource,
  name: PartName,
  weights: readonly string[],
): Effect.fn.Return<Tensor[], BundleError> {
  const part = yield* partOf(source, name);
  const keys = weights.map((weight) => keyIn(part.header, weight));
  const lost = weights.find((_, i) => keys[i] === undefined);
  if (lost !== undefined) {
    return yield* new BundleError({ file: part.file, key: lost, problem: `holds no tensor ${lost}` });
  }
  const found = new Map<string, Tensor>();
  for (const file of part.files) {
    const here = new Set(keys.filter((key) => key !== undefined && file.header.entries.has(key)));
    if (here.size === 0) continue;
    const kept = (yield* Shared)?.get(stateOf(part, file));
    yield* withWeights(file, (handle) =>
      Effect.gen(function* () {
        for (const key of here) {
          const entry = key === undefined ? undefined : file.header.entries.get(key);
          if (key === undefined || entry === undefined) continue;
          const value = source.changed.get(name)?.get(key);
          const bytes = value !== undefined
            ? yield* tensors(() => encodeAs(file.header, key, value))
            : kept?.subarray(entry.begin, entry.end) ?? (yield* tensorBytes(file, handle, key));
          found.set(key, yield* tensors(() => decodeAs(file.header, key, bytes)));
        }
      }));
  }
  return keys.flatMap((key) => found.get(key ?? "") ?? []);
});
