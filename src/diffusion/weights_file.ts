/** One .safetensors file that holds a part's weights, or some of them: checked and hashed once, then left on disk. */
import { Effect } from "effect";
import { basename } from "node:path";
import { dataStart, type Header, parseHeader, SafetensorsError } from "../tensor/safetensors.ts";
import { BundleError } from "./errors.ts";
import { readFully, system, withFile } from "./files.ts";
import { type Scan, scanWeights } from "./scan.ts";

/** Bytes of a file from `begin` up to `end`. */
export interface Stretch {
  readonly begin: number;
  readonly end: number;
}

/** A file as far as its tensors belong to one part. */
export interface WeightsFile {
  readonly path: string;
  /** Of the whole file, when it was opened. */
  readonly size: number;
  readonly modified: number;
  readonly sha256: string;
  /** What of it belongs to the part, in ascending order. In memory the stretches follow each other without gaps. */
  readonly stretches: readonly Stretch[];
  /** The part's tensors by the names that its network gives them; positions count in memory. */
  readonly header: Header;
  /** Matrices that the file holds transposed. In memory they stand as the network has them. */
  readonly transposed: ReadonlySet<string>;
}

/** A SafetensorsError as the reader of a model folder sees it. */
export const fromSafetensors = (e: SafetensorsError): BundleError =>
  new BundleError({
    file: e.file,
    problem: e.message,
    ...(e.key === undefined ? {} : { key: e.key }),
    ...(e.message.includes("truncated") ? { hint: "Was the download cut off? Fetch the file again." } : {}),
  });

/** Runs plain tensor code; its SafetensorsErrors become BundleErrors, anything else is a defect. */
export const tensors = <A>(run: () => A): Effect.Effect<A, BundleError> =>
  Effect.suspend(() => {
    try {
      return Effect.succeed(run());
    } catch (e) {
      if (e instanceof SafetensorsError) return Effect.fail(fromSafetensors(e));
      throw e;
    }
  });

/** A file with its own header, its hash, and the tensors with values that are no finite numbers. */
export interface ScannedFile extends Scan {
  readonly path: string;
  readonly size: number;
  readonly modified: number;
  readonly header: Header;
}

/** Reads a file once, in bounded memory. */
export const scanFile = (path: string): Effect.Effect<ScannedFile, BundleError> =>
  withFile(path, (handle) =>
    Effect.gen(function* () {
      const { size, mtimeMs } = yield* system(path, "cannot be read", () => handle.stat());
      const first = new Uint8Array(Math.min(8, size));
      yield* readFully(handle, path, first, 0);
      const start = yield* tensors(() => dataStart(first, size, path));
      const head = new Uint8Array(start);
      yield* readFully(handle, path, head, 0);
      const header = yield* tensors(() => parseHeader(head, size, path));
      return { path, size, modified: mtimeMs, header, ...yield* scanWeights(handle, path, size, header.entries) };
    }));

/** Fails when one of the tensors holds values that are no finite numbers. */
export const checkFinite = (file: ScannedFile, keys: Iterable<string>): Effect.Effect<void, BundleError> => {
  const bad = [...keys].filter((key) => file.nonFinite.has(key));
  if (bad.length === 0) return Effect.void;
  const others = bad.length === 1 ? "" : ` (and such values in ${bad.length - 1} more tensors)`;
  return Effect.fail(
    new BundleError({
      file: file.path,
      key: bad[0],
      problem: `holds ${file.nonFinite.get(bad[0])} values that are not finite numbers in ${bad[0]}${others}`,
      expected: "finite weights",
      hint: `The file (${
        basename(file.path)
      }) is damaged, or was made by a training run that diverged; fetch or train it again.`,
    }),
  );
};

/** A file all of whose tensors belong to one part, under the names that they have in it. */
export const wholeFile = ({ path, size, modified, sha256, header }: ScannedFile): WeightsFile => ({
  path,
  size,
  modified,
  sha256,
  header,
  stretches: [{ begin: 0, end: size }],
  transposed: new Set(),
});

/** Bytes that the file's share of the part takes in memory. */
export const bytesOf = ({ stretches }: WeightsFile): number => stretches.reduce((n, s) => n + s.end - s.begin, 0);

/** Where a byte of the file's share of the part lies in the file. */
export const placeIn = ({ stretches }: WeightsFile, position: number): number => {
  let before = 0;
  for (const { begin, end } of stretches) {
    if (position < before + end - begin) return begin + position - before;
    before += end - begin;
  }
  return stretches.at(-1)?.end ?? 0;
};

/** The tensors of several files as if these followed each other. */
export const joinHeaders = (files: readonly WeightsFile[], name: string): Header => {
  if (files.length === 1) return files[0].header;
  let at = 0;
  const entries = files.flatMap((file) => {
    const offset = at;
    at += bytesOf(file);
    return [...file.header.entries].map(([key, entry]) =>
      [key, { ...entry, begin: entry.begin + offset, end: entry.end + offset }] as const
    );
  });
  return { file: name, entries: new Map(entries), metadata: {}, bytes: 0 };
};
