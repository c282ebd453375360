/**
 * From a part of a model to a session: a graph is compiled against the part's own weights, which stay as they lie in its
 * .safetensors file (with the model's changes patched in).
 */
import { Effect } from "effect";
import { type CompileOptions, type Graph, toOnnx } from "../graph/mod.ts";
import { type DeviceTensor, type HostTensor, Runtime, type Session, toHost } from "../runtime/mod.ts";
import { slice0, type Tensor, tensor } from "../tensor/tensor.ts";
import type { Bundle } from "./bundle.ts";
import { checkKeys } from "./keys.ts";
import type { Part, PartName } from "./part.ts";
import { checkRoom } from "./room.ts";
import { type PartSource, partWeights } from "./weights.ts";
import { networkWeights } from "./whole_network.ts";

/**
 * Checks that a part's file holds every weight of its network, in the right shapes, and nothing else.
 * Returns the key under which the file holds each.
 */
export const networkKeys = Effect.fnUntraced(function* (part: Part) {
  return yield* checkKeys(part, yield* networkWeights(part));
});

/** Checks the weights of every part against its config. */
export const checkBundle = Effect.fnUntraced(function* (bundle: Bundle) {
  yield* Effect.forEach(Object.values(bundle.parts), networkKeys);
});

/**
 * Whether a network that only draws is to be computed in half precision: where the runtime does so, and the file stores
 * nothing finer or it was asked for by name.
 */
export const inHalves = (part: Part) =>
  Effect.map(Effect.service(Runtime), ({ report: { precision } }) =>
    precision.chosen === "float16" &&
    (precision.requested === "float16" || [...part.header.entries.values()].every(({ dtype }) => dtype === "F16")));

/** A session of a graph whose weights all belong to one part, with the model's changes. */
export const openSession = Effect.fnUntraced(
  function* (name: string, graph: Graph, source: PartSource, part: PartName, options: CompileOptions = {}) {
    const runtime = yield* Runtime;
    yield* checkRoom(name, graph, source.parts[part]?.size ?? 0, runtime);
    const { locate, external, ...folder } = yield* partWeights(source, part, { files: runtime.readsFiles });
    const { model, paths } = toOnnx(graph, (_, key) => locate(key), options);
    return yield* runtime.session({ name, model, external: external.filter(({ path }) => paths.has(path)), ...folder });
  },
);

/**
 * Runs a session over `n` rows in batches of `batch`, as many batches side by side as it computes; the results in order.
 * @param body gets the first row of a batch, and how many of its rows are real.
 */
export const inBatches = <A, E, R>(
  session: Session,
  n: number,
  batch: number,
  body: (begin: number, real: number) => Effect.Effect<A, E, R>,
): Effect.Effect<A[], E, R> =>
  Effect.forEach(
    Array.from({ length: Math.ceil(n / batch) }, (_, i) => i * batch),
    (begin) => body(begin, Math.min(batch, n - begin)),
    { concurrency: session.lanes },
  );

/** Rows of a batch, at most `most`, so that `n` rows fill batches evenly, and these the lanes that compute side by side. */
export const evenBatch = (n: number, most: number, lanes: number): number => {
  const rounds = Math.ceil(n / most / lanes);
  return Math.max(1, Math.min(most, Math.ceil(n / (rounds * lanes))));
};

/**
 * Rows `begin` to `begin + count` of the first axis; past the end the last row repeats, so that a short last batch
 * fills a static shape.
 */
export const rows = (t: Tensor, begin: number, count: number): Tensor => {
  const end = Math.min(begin + count, t.dims[0]);
  if (end - begin === count) return slice0(t, begin, end);
  const width = t.data.length / t.dims[0];
  const data = new Float32Array(count * width);
  for (let i = 0; i < count; i++) {
    const from = Math.min(begin + i, t.dims[0] - 1);
    data.set(t.data.subarray(from * width, (from + 1) * width), i * width);
  }
  return { dims: [count, ...t.dims.slice(1)], data };
};

/** A one-element tensor, for coefficients that change from step to step. */
export const scalar = (x: number, dims: readonly number[] = []): Tensor => tensor(Float32Array.of(x), dims);

/** An output on the host; every network's outputs are float32. */
export const float32 = (t: HostTensor | DeviceTensor) =>
  Effect.map(toHost(t), ({ dims, data }): Tensor => {
    if (!(data instanceof Float32Array)) throw new TypeError(`expected float32, got ${data.constructor.name}`);
    return { dims, data };
  });
