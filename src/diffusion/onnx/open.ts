/**
 * The weights of a part that was exported to ONNX (Optimum, diffusers' Onnx pipelines): views of the bytes that its .onnx files, or
 * the files beside them, hold. Nothing of a graph is run, and none of these files is ever written.
 */
import { Effect } from "effect";
import { basename, join } from "node:path";
import { ProtobufError } from "../../graph/protobuf_reader.ts";
import { type Entry, type Header, widthOf } from "../../tensor/safetensors.ts";
import { BundleError } from "../errors.ts";
import { fileIn, type Folder, readFully, system, withFile } from "../files.ts";
import { scanWeights } from "../scan.ts";
import { checkFinite, type WeightsFile } from "../weights_file.ts";
import { OnnxError, type OnnxModel, readOnnx } from "./model.ts";
import { type Places, placesIn } from "./places.ts";

/** The file that an exporter writes into a part's folder. */
export const GRAPH = "model.onnx";

const AGAIN =
  "Export the model again without optimisation or quantisation (optimum-cli export onnx --model FOLDER OUT), or give the " +
  "diffusers folder that it was exported from.";

/** Weights that one file or another holds, as a part has them. */
export interface ExportedWeights {
  readonly files: readonly WeightsFile[];
  readonly notes: readonly string[];
}

/** A graph's file, read. */
export interface OpenGraph {
  readonly folder: Folder;
  readonly path: string;
  readonly model: OnnxModel;
}

/** Runs code that reads a graph; what it finds wrong is an error of the file. */
const reading = <A>(file: string, run: () => Promise<A> | A): Effect.Effect<A, BundleError> =>
  Effect.tryPromise({ try: async () => await run(), catch: (e) => e }).pipe(
    Effect.catch((e): Effect.Effect<never, BundleError> => {
      if (e instanceof ProtobufError) {
        return Effect.fail(
          new BundleError({
            file,
            problem: `${e.message} (at byte ${e.at})`,
            expected: "an ONNX file",
            hint: "Was the download cut off? Fetch the file again.",
          }),
        );
      }
      if (e instanceof OnnxError) {
        return Effect.fail(
          new BundleError({
            file,
            problem: e.message,
            ...(e.tensor === undefined ? {} : { key: e.tensor }),
            hint: AGAIN,
          }),
        );
      }
      return e instanceof BundleError ? Effect.fail(e) : Effect.die(e);
    }),
  );

/** Reads the graph in a part's folder. */
export const openGraph = Effect.fnUntraced(function* (folder: Folder): Effect.fn.Return<OpenGraph, BundleError> {
  const path = yield* fileIn(folder, GRAPH);
  if (path === undefined) {
    return yield* new BundleError({ file: join(folder.path, GRAPH), problem: "is missing", hint: AGAIN });
  }
  const model = yield* withFile(path, (handle) =>
    Effect.gen(function* () {
      const { size } = yield* system(path, "cannot be read", () => handle.stat());
      return yield* reading(path, () =>
        readOnnx((into, at) => Effect.runPromise(readFully(handle, path, into, at)), size));
    }));
  return { folder, path, model };
});

/** Places the constants of a graph; see placesIn. */
export const placesOf = (
  { path, model }: OpenGraph,
  expected: ReadonlyMap<string, readonly number[]>,
): Effect.Effect<Places, BundleError> => reading(path, () => placesIn(model, expected));

/** A tensor of the network as bytes of a file. */
export interface Stored {
  readonly key: string;
  readonly entry: Entry;
  readonly transposed: boolean;
}

/** Path of the file beside a graph that holds some of its tensors. */
const fileBeside = Effect.fnUntraced(function* ({ folder, path }: OpenGraph, location: string, tensor: string) {
  const fail = (problem: string, hint: string) =>
    Effect.fail(new BundleError({ file: path, key: tensor, problem, expected: "a file of the same folder", hint }));
  const name = JSON.stringify(location.slice(0, 100));
  if (location === "" || location === "." || location === ".." || /[/\\\0]/.test(location)) {
    return yield* fail(
      `says that ${tensor} lies in ${name}`,
      "An export has no reason to point elsewhere; do not trust it.",
    );
  }
  const found = yield* fileIn(folder, location);
  return found ??
    (yield* fail(`says that ${tensor} lies in ${name}, which is not there`, "Fetch the whole folder again."));
});

/** The tensors of a graph's network by the files that hold them. The graph's own file is always among them: it is hashed. */
export const byFile = Effect.fnUntraced(function* (graph: OpenGraph, { placed }: Places) {
  const files = new Map<string, Stored[]>([[graph.path, []]]);
  const paths = new Map<string, string>();
  for (const [key, { constant, dims, transposed }] of placed) {
    const { name, location, begin, dtype, bytes } = constant;
    if (begin === undefined || dtype === undefined) {
      return yield* new BundleError({
        file: graph.path,
        key: name,
        problem: `holds ${name} in a form that is not read`,
        expected: "raw bytes, as exporters write them",
        hint: AGAIN,
      });
    }
    let path = location === undefined ? graph.path : paths.get(location);
    if (location !== undefined && path === undefined) {
      path = yield* fileBeside(graph, location, name);
      paths.set(location, path);
    }
    if (path === undefined) continue;
    const stored = { key, entry: { dtype, dims, begin, end: begin + bytes }, transposed };
    files.set(path, [...files.get(path) ?? [], stored]);
  }
  return files;
});

/** Tensors that several names share may be small ones alone, so that a small file does not stand for endless weights. */
const MOST_SHARED = 64 << 20;

/** Opens one file: hashed and looked at once. */
const openFile = Effect.fnUntraced(function* (path: string, stored: readonly Stored[]) {
  const byPlace = stored.toSorted((a, b) => a.entry.begin - b.entry.begin || a.entry.end - b.entry.end);
  const entries = new Map(byPlace.map(({ key, entry }) => [key, entry]));
  const scanned = yield* withFile(path, (handle) =>
    Effect.gen(function* () {
      const { size, mtimeMs } = yield* system(path, "cannot be read", () => handle.stat());
      const beyond = byPlace.find(({ entry }) => entry.end > size);
      if (beyond !== undefined) {
        return yield* new BundleError({
          file: path,
          key: beyond.key,
          problem: `is truncated: ${beyond.key} ends at byte ${beyond.entry.end}, the file has ${size}`,
          hint: "Was the download cut off? Fetch the file again.",
        });
      }
      const bytes = byPlace.reduce((n, { entry }) => n + entry.end - entry.begin, 0);
      if (bytes > size + MOST_SHARED) {
        return yield* new BundleError({
          file: path,
          problem: `has ${size} bytes, and ${bytes} bytes of weights are said to lie in it`,
          hint: AGAIN,
        });
      }
      const header: Header = { file: path, entries, metadata: {}, bytes: 0 };
      return { path, size, modified: mtimeMs, header, ...yield* scanWeights(handle, path, size, entries) };
    }));
  yield* checkFinite(scanned, entries.keys());
  // In memory wide elements come first, so that every tensor is aligned.
  const order = byPlace.toSorted((a, b) => widthOf(b.entry.dtype) - widthOf(a.entry.dtype));
  let at = 0;
  const inMemory = order.map(({ key, entry }): readonly [string, Entry] => {
    const begin = at;
    at += entry.end - entry.begin;
    return [key, { ...entry, begin, end: at }];
  });
  const { size, modified, sha256 } = scanned;
  const file: WeightsFile = {
    path,
    size,
    modified,
    sha256,
    // A tensor that stands for two of the network has a place in memory for each: one may change without the other.
    stretches: order.map(({ entry: { begin, end } }) => ({ begin, end })),
    header: { file: path, entries: new Map(inMemory), metadata: {}, bytes: 0 },
    transposed: new Set(stored.filter(({ transposed }) => transposed).map(({ key }) => key)),
  };
  return file;
});

const some = (list: readonly string[]): string => list.slice(0, 4).join("; ") + (list.length > 4 ? "; …" : "");

const NAMELESS =
  "Its nodes do not say which module they are from: exporters before PyTorch 1.13 left that out. Export the model again with a " +
  "newer one, or give the diffusers folder that it was exported from.";

/**
 * Opens the weights of a part.
 * @param folders one folder with a graph each; a VAE's encoder and decoder are two
 * @param expected dims of all tensors of the part's network by name
 */
export const openExport = Effect.fn("openExport")(function* (
  folders: readonly Folder[],
  expected: ReadonlyMap<string, readonly number[]>,
): Effect.fn.Return<ExportedWeights, BundleError> {
  const files: WeightsFile[] = [];
  const missing = new Set(expected.keys());
  let [turned, shared] = [0, 0];
  for (const folder of folders) {
    const graph = yield* openGraph(folder);
    const places = yield* placesOf(graph, expected);
    if (places.strange.length > 0) {
      return yield* new BundleError({
        file: graph.path,
        problem: `holds ${places.strange.length} weights that config.json's network does not have (${
          some(places.strange)
        })`,
        expected: "the weights of that network, each under its name or taken by its module",
        hint: graph.model.nodes.some(({ module }) => module !== undefined) ? AGAIN : NAMELESS,
      });
    }
    for (const key of places.placed.keys()) missing.delete(key);
    const constants = new Set([...places.placed.values()].map(({ constant }) => constant));
    shared += places.placed.size - constants.size;
    for (const [path, stored] of yield* byFile(graph, places)) {
      const file = yield* openFile(path, stored);
      files.push(file);
      turned += file.transposed.size;
    }
  }
  if (missing.size > 0) {
    const first = [...missing].sort();
    const where = folders.map(({ path }) => basename(path)).join(" and ");
    return yield* new BundleError({
      file: join(folders[0].path, GRAPH),
      key: first[0],
      problem:
        `lacks ${missing.size} of the ${expected.size} tensors of config.json's network, or they could not be told ` +
        `(${some(first)})`,
      expected: `every tensor once, in ${where}`,
      hint: AGAIN,
    });
  }
  return {
    files,
    notes: [
      `${
        folders.map(({ path }) => basename(path)).join(" and ")
      }: read from an ONNX export, ${expected.size} tensors, of ` +
      `which ${turned} stand turned over and ${shared} share another's bytes. What its graph computes beyond the network of ` +
      "config.json is not looked at, and what is saved is that network, as safetensors",
    ],
  };
});
