/**
 * Weights files as an inspection reads them: header first, then every tensor once, piece by piece, in the order of the
 * bytes. NaN, wrong shapes and the like are facts here, not errors.
 */
import { Effect } from "effect";
import { createHash } from "node:crypto";
import type { FileHandle } from "node:fs/promises";
import { addValues, finite, type Moments, noMoments, rmsOf } from "../tensor/moments.ts";
import { dataStart, type Entry, type Header, parseHeader, toFloats, widthOf } from "../tensor/safetensors.ts";
import { turnedOver } from "../tensor/turn.ts";
import { size } from "../tensor/tensor.ts";
import { BundleError } from "./errors.ts";
import { readFully, system, withFile } from "./files.ts";
import { kindOf, placeOf } from "./inspect_names.ts";
import type { TensorFacts } from "./inspection.ts";
import { tensors } from "./part.ts";

/** Largest piece in memory, in bytes; a multiple of every element's width. */
const PIECE = 1 << 23;
/** More tensors than any network has. */
const MOST_TENSORS = 200_000;

/** A safetensors file whose header was read. */
export interface WeightsFile {
  /** Path in the folder, as results name it. */
  readonly name: string;
  readonly path: string;
  readonly header: Header;
  readonly bytes: number;
  /** Where tensors are views of a file that holds more: those that stand turned over in it. */
  readonly views?: ReadonlySet<string>;
}

/** Reads a file's header. Fails when it is no sound safetensors file. */
export const openWeights = (path: string, name: string): Effect.Effect<WeightsFile, BundleError> =>
  withFile(path, (handle) =>
    Effect.gen(function* () {
      const { size } = yield* system(path, "cannot be read", () => handle.stat());
      const bytes = Number(size);
      const first = new Uint8Array(Math.min(8, bytes));
      yield* readFully(handle, path, first, 0);
      const start = yield* tensors(() => dataStart(first, bytes, path));
      const head = new Uint8Array(start);
      yield* readFully(handle, path, head, 0);
      const header = yield* tensors(() => parseHeader(head, bytes, path));
      if (header.entries.size > MOST_TENSORS) {
        return yield* new BundleError({
          file: path,
          problem: `names ${header.entries.size} tensors`,
          expected: `at most ${MOST_TENSORS}`,
        });
      }
      return { name, path, header, bytes };
    }));

/** Told of bytes that were read. */
export type OnBytes = (bytes: number) => Effect.Effect<void>;

export interface Scanned {
  readonly tensors: readonly TensorFacts[];
  /** Of the whole file. */
  readonly sha256: string;
  /** Of the bytes behind the header alone, which is what trainers note in the metadata. */
  readonly dataSha256: string;
}

const factsOf = (file: string, key: string, entry: Entry, sha256: string, m: Moments | undefined): TensorFacts => {
  const { dtype, dims } = entry;
  const { layer, role } = placeOf(key);
  const seen = m !== undefined && finite(m) > 0;
  return {
    key,
    file,
    dtype,
    dims,
    parameters: size(dims),
    kind: kindOf(key, dims),
    layer,
    role,
    sha256,
    rms: seen ? rmsOf(m) : null,
    mean: seen ? m.sum / finite(m) : null,
    min: seen ? m.min : null,
    max: seen ? m.max : null,
    zeros: m?.zeros ?? 0,
    nan: m?.nan ?? 0,
    infinite: m?.infinite ?? 0,
  };
};

/** One tensor's bytes as its network has it. */
const viewBytes = (
  file: WeightsFile,
  handle: FileHandle,
  key: string,
  { dims: [rows, columns], dtype, begin, end }: Entry,
): Effect.Effect<Uint8Array, BundleError> =>
  Effect.gen(function* () {
    const bytes = new Uint8Array(end - begin);
    yield* readFully(handle, file.path, bytes, begin);
    return file.views?.has(key) ? turnedOver(bytes, columns, rows, widthOf(dtype)) : bytes;
  });

/** The same of a file whose tensors are views of it: one tensor is in memory at a time. */
const scanViews = (file: WeightsFile, onBytes: OnBytes): Effect.Effect<Scanned, BundleError> =>
  withFile(file.path, (handle) =>
    Effect.gen(function* () {
      const out: TensorFacts[] = [];
      for (const [key, entry] of file.header.entries) {
        const bytes = yield* viewBytes(file, handle, key, entry);
        const values = toFloats(entry.dtype, bytes.slice().buffer);
        const moments = noMoments();
        if (values !== undefined) addValues(moments, values);
        const sha256 = createHash("sha256").update(bytes).digest("hex");
        out.push(factsOf(file.name, key, entry, sha256, values === undefined ? undefined : moments));
        yield* onBytes(bytes.length);
      }
      const sha256 = yield* hashOf(file.path);
      return { tensors: out, sha256, dataSha256: sha256 };
    }));

/** Reads every tensor of a file once. `entries` stand in the order of their bytes and fill the file (parseHeader saw to it). */
export const scanFile = (file: WeightsFile, onBytes: OnBytes): Effect.Effect<Scanned, BundleError> =>
  file.views !== undefined ? scanViews(file, onBytes) : withFile(file.path, (handle) =>
    Effect.gen(function* () {
      const { header, path } = file;
      const whole = createHash("sha256"), data = createHash("sha256");
      const head = new Uint8Array(header.bytes);
      yield* readFully(handle, path, head, 0);
      whole.update(head);
      const out: TensorFacts[] = [];
      for (const [key, entry] of header.entries) {
        const own = createHash("sha256");
        let moments: Moments | undefined = noMoments();
        for (let at = entry.begin; at < entry.end; at += PIECE) {
          // A new piece each time: views of every element type start at its beginning, and none outlives the next.
          const piece = new Uint8Array(Math.min(PIECE, entry.end - at));
          yield* readFully(handle, path, piece, at);
          for (const hash of [whole, data, own]) hash.update(piece);
          const values = toFloats(entry.dtype, piece.buffer);
          if (values === undefined) moments = undefined;
          else if (moments !== undefined) addValues(moments, values);
          yield* onBytes(piece.length);
        }
        out.push(factsOf(file.name, key, entry, own.digest("hex"), moments));
      }
      return { tensors: out, sha256: whole.digest("hex"), dataSha256: data.digest("hex") };
    }));

/** A stretch of one tensor as float32; undefined for an element type that is not read here. */
export const readStretch = (
  file: WeightsFile,
  key: string,
  from: number,
  count: number,
): Effect.Effect<Float32Array | undefined, BundleError> =>
  Effect.gen(function* () {
    const entry = file.header.entries.get(key);
    if (entry === undefined) return undefined;
    const width = (entry.end - entry.begin) / Math.max(1, size(entry.dims));
    if (file.views?.has(key)) {
      const whole = yield* withFile(file.path, (handle) => viewBytes(file, handle, key, entry));
      return toFloats(entry.dtype, whole.slice(from * width, (from + count) * width).buffer as ArrayBuffer);
    }
    const bytes = new Uint8Array(count * width);
    yield* withFile(file.path, (handle) => readFully(handle, file.path, bytes, entry.begin + from * width));
    return toFloats(entry.dtype, bytes.buffer);
  });

/** SHA-256 of a small file's bytes. */
export const hashOf = (path: string): Effect.Effect<string, BundleError> =>
  withFile(path, (handle) =>
    Effect.gen(function* () {
      const { size } = yield* system(path, "cannot be read", () => handle.stat());
      const hash = createHash("sha256");
      for (let at = 0; at < Number(size); at += PIECE) {
        const piece = new Uint8Array(Math.min(PIECE, Number(size) - at));
        yield* readFully(handle, path, piece, at);
        hash.update(piece);
      }
      return hash.digest("hex");
    }));
