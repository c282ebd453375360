/** ONNX exports as an inspection reads them: their tensors under the names of the network, or as they are called in the graph. */
import { Effect } from "effect";
import { basename } from "node:path";
import type { Entry } from "../tensor/safetensors.ts";
import type { BundleError } from "./errors.ts";
import type { Folder } from "./files.ts";
import { system, withFile } from "./files.ts";
import { counted, finding } from "./inspect_finding.ts";
import type { WeightsFile } from "./inspect_weights.ts";
import type { Finding } from "./inspection.ts";
import { byFile, openGraph, placesOf } from "./onnx/open.ts";
import type { Placed, Places } from "./onnx/places.ts";

const UNREAD = {
  why: "What it holds cannot be told from here; a graph can hold anything.",
  todo: "Export the model again without optimisation or quantisation, or inspect what it was exported from.",
};

/** All floating-point constants by their own names, where no network tells which is which. */
const unplaced = (constants: readonly Placed[]): Places => ({
  placed: new Map(constants.map((placed) => [placed.constant.name, placed])),
  strange: [],
});

/**
 * The weights files of a part that is a graph; findings where it cannot be read or holds what its network does not have.
 * @param prefix path of the folder in the checkpoint, with a slash
 * @param expected dims of the network's tensors; undefined where there is no network to go by
 */
export const openExported = Effect.fnUntraced(function* (
  folder: Folder,
  prefix: string,
  expected: ReadonlyMap<string, readonly number[]> | undefined,
  findings: Finding[],
): Effect.fn.Return<WeightsFile[], BundleError> {
  const unread = (error: BundleError) => {
    findings.push(finding("graph-unreadable", "warn", [`${prefix}model.onnx`], { what: error.message, ...UNREAD }));
    return Effect.succeed(undefined);
  };
  const graph = yield* openGraph(folder).pipe(Effect.catch(unread));
  if (graph === undefined) return [];
  const floats = [...graph.model.constants.values()].filter(({ dtype, begin }) =>
    dtype !== undefined && /^B?F/.test(dtype) && begin !== undefined
  ).map((constant) => ({ constant, dims: constant.dims, transposed: false }));
  const told = expected === undefined ? undefined : yield* placesOf(graph, expected).pipe(Effect.catch(unread));
  const places = told ?? unplaced(floats);
  const files = yield* byFile(graph, places).pipe(Effect.catch(unread));
  findings.push(finding("graph", "info", [`${prefix}model.onnx`], {
    what: `${basename(folder.path)} is an ONNX graph of ${counted(graph.model.nodes.length, "node")}${
      graph.model.producer === "" ? "" : `, made by ${graph.model.producer}`
    }`,
    why: "Its weights are looked at, not what it computes with them: a graph can do more than its config.json says.",
    todo: "Run graphs of people whom you trust only; a cure by sau is the network of config.json with these weights.",
  }));
  if (places.strange.length > 0) {
    findings.push(
      finding("graph-strange-weights", "warn", places.strange.map((what) => `${prefix}model.onnx: ${what}`), {
        what: `${counted(places.strange.length, "weight")} in the graph that config.json's network does not have`,
        why: "The graph is not that network, or was rewritten after it was exported.",
        todo: "Ask where it is from; export the model again yourself.",
      }),
    );
  }
  const out: WeightsFile[] = [];
  for (const [path, stored] of files ?? []) {
    const bytes = yield* withFile(path, (handle) => system(path, "cannot be read", () => handle.stat()));
    const cut = stored.find(({ entry }) => entry.end > bytes.size);
    if (cut !== undefined) {
      findings.push(finding("weights-unreadable", "warn", [`${prefix}${basename(path)}`], {
        what: `${basename(path)} is truncated: ${cut.key} ends at byte ${cut.entry.end}, the file has ${bytes.size}`,
        ...UNREAD,
      }));
    }
    const whole = stored.filter(({ entry }) => entry.end <= bytes.size).toSorted((a, b) =>
      a.entry.begin - b.entry.begin
    );
    const entries = new Map(whole.map(({ key, entry }): readonly [string, Entry] => [key, entry]));
    out.push({
      name: `${prefix}${basename(path)}`,
      path,
      header: { file: path, entries, metadata: {}, bytes: 0 },
      bytes: bytes.size,
      views: new Set(whole.filter(({ transposed }) => transposed).map(({ key }) => key)),
    });
  }
  return out;
});
