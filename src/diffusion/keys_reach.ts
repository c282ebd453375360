/**
 * How far a change of the text's embedding reaches through the weights that read it: attn2's keys and values. It costs
 * one product with each of those weights and no evaluation of the network; a closed-form edit of them shows here.
 */
import { Effect } from "effect";
import { add, Graph, linear, mul, reduceSum, reshape } from "../graph/mod.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Bundle } from "./bundle.ts";
import { float32, inBatches, openSession, rows } from "./networks.ts";
import { wholeNetwork } from "./whole_network.ts";

const BATCH = 256;

/** Opens the weights; the result maps changes of embeddings [n, D] to Σ over keys and values of ‖W Δ‖², [n]. */
export const openKeysReach = Effect.fnUntraced(function* (bundle: Bundle) {
  const whole = new Graph();
  wholeNetwork.unet(whole, bundle.parts.unet.config);
  const readers = whole.weightsUsed().filter(({ key }) => /\battn2\.to_[kv]\.weight$/.test(key));
  const width = readers[0].dims[1];
  const g = new Graph();
  const change = g.input("change", "float32", [BATCH, width]);
  const squares = readers.filter(({ dims }) => dims[1] === width).map(({ key, dims }) => {
    const moved = linear(change, g.weights("unet")(key, dims));
    return reduceSum(mul(moved, moved), [1]);
  });
  g.output("reach", reshape(squares.reduce(add), [BATCH]));
  const session = yield* openSession("keys and values", g, bundle, "unet");

  return Effect.fnUntraced(function* (changes: Tensor) {
    const n = changes.dims[0];
    const out = new Float32Array(n);
    yield* inBatches(
      session,
      n,
      BATCH,
      Effect.fnUntraced(function* (begin, real) {
        const { reach } = yield* session.run({ change: rows(changes, begin, BATCH) });
        out.set((yield* float32(reach)).data.subarray(0, real), begin);
      }),
    );
    return out;
  });
});
