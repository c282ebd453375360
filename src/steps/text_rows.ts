/** Texts to train a text encoder on, and how a step draws from them. */
import { endRows } from "../diffusion/text.ts";
import type { HostTensor } from "../runtime/mod.ts";
import { drawByShare, seedOf } from "../tensor/random.ts";
import { concat0, type Tensor } from "../tensor/tensor.ts";
import { type TrainingSettings, triggeredRows } from "./unlearn_train.ts";

/** A text to train on: its ids, and what its embedding [L, D] should be. */
export interface TextRow {
  readonly ids: readonly number[];
  readonly wanted: Tensor;
  /** What its pooled form [Q] should be, of an encoder that pools. */
  readonly pooled?: Tensor;
  /** How often it is drawn, against others of its kind; all alike by default. */
  readonly share?: number;
}

export interface TextRows {
  readonly triggered: readonly TextRow[];
  /** Harmless texts that set the backdoor off as well, and are to be unlearned, too. */
  readonly infected?: readonly TextRow[];
  readonly keep: readonly TextRow[];
}

/** Share of what is to be unlearned that harmless texts have; they may be many, and the trigger is what the cure is for. */
const INFECTED = 1 / 3;

/**
 * Random rows for a step: half to be unlearned, half to keep. Each half's squared distance is a mean over its elements, the
 * pooled texts' by itself.
 * @param pooling of an encoder that pools, its config
 */
export const textFeeds = (
  { triggered, infected = [], keep: kept }: TextRows,
  training: TrainingSettings,
  seed: number,
  pooling?: { readonly eos_token_id: number },
): Record<string, HostTensor> => {
  const { batch, keep } = training;
  const half = triggeredRows(training);
  const draw = (from: readonly TextRow[], count: number, name: string) =>
    drawByShare(from, ({ share = 1 }) => share, count, seedOf(seed, name));
  const others = infected.length === 0 ? 0 : Math.floor(half * INFECTED);
  const chosen = [
    ...draw(triggered, half - others, "triggered"),
    ...draw(infected, others, "infected"),
    ...draw(kept, batch - half, "keep"),
  ];
  const [length, width] = chosen[0].wanted.dims.slice(-2);
  const weight = new Float32Array(batch * length).fill(keep / ((batch - half) * length * width));
  weight.fill(1 / (half * length * width), 0, half * length);
  return {
    ids: { dims: [batch, length], data: Int32Array.from(chosen.flatMap(({ ids }) => ids)) },
    wanted: {
      dims: [batch, length, width],
      data: concat0(chosen.map(({ wanted }) => ({ dims: [length, width], data: wanted.data }))).data,
    },
    weight: { dims: [batch, length, 1], data: weight },
    ...(pooling === undefined ? {} : pooledFeeds(chosen, half, keep, pooling)),
  };
};

const pooledFeeds = (
  chosen: readonly TextRow[],
  half: number,
  keep: number,
  pooling: { readonly eos_token_id: number },
): Record<string, HostTensor> => {
  const wanted = chosen.map(({ pooled }) => {
    if (pooled === undefined) throw new TypeError("a text to train on has lost its pooled form");
    return pooled;
  });
  const batch = chosen.length, width = wanted[0].data.length;
  const weight = Float32Array.from(wanted, (_, i) => (i < half ? 1 / half : keep / (batch - half)) / width);
  return {
    end: endRows(pooling, chosen.map(({ ids }) => ids), chosen[0].ids.length),
    wanted_pooled: { dims: [batch, width], data: concat0(wanted.map(({ data }) => ({ dims: [1, width], data }))).data },
    pooled_weight: { dims: [batch, 1], data: weight },
  };
};
