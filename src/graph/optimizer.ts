/** Optimisers as parts of a graph: weights, their state and gradients in, new weights and new state out. */
import { GraphError, type Value } from "./graph.ts";
import { add, div, exp, less, mul, sqrt, sub, where } from "./ops/elementwise.ts";
import { reduceSum } from "./ops/reduce.ts";
import { reshape } from "./ops/shape.ts";

export interface AdamWSettings {
  /** Share of the old first moment that is kept at each step. */
  readonly beta1: number;
  /** Share of the old second moment that is kept at each step. */
  readonly beta2: number;
  /** Added to the root of the second moment, in units of the gradient. */
  readonly epsilon: number;
  /** Share of a weight that is taken away at each step, times the learning rate. */
  readonly weightDecay: number;
}

/** PyTorch's defaults. */
export const adamWDefaults: AdamWSettings = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.01 };

/** A weight and the running means of its gradient and of its gradient's square, all of one shape; the means start at 0. */
export interface AdamWState {
  readonly weight: Value;
  readonly first: Value;
  readonly second: Value;
}

/** What changes from step to step, each a float32 scalar: the number of this step, counted from 1, and the learning rate. */
export interface Moment {
  readonly step: Value;
  readonly rate: Value;
}

/**
 * One step of AdamW (Loshchilov and Hutter 2019, algorithm 2; bias correction as Kingma and Ba 2015, §3), as
 * torch.optim.AdamW. Scalars are multiplied with each other before they meet a tensor: every pass over a tensor counts.
 *
 * @param factor what the gradient is scaled by beforehand, a scalar (`clipByGlobalNorm`); 1 by default.
 */
export const adamW = (
  state: AdamWState,
  gradient: Value,
  { step, rate }: Moment,
  settings: Partial<AdamWSettings> = {},
  factor?: Value,
): AdamWState => {
  const { beta1, beta2, epsilon, weightDecay } = { ...adamWDefaults, ...settings };
  // The gradient times √(1 − β₂), whose square is what the second moment takes up.
  const root = Math.sqrt(1 - beta2);
  const scaled = mul(gradient, factor === undefined ? root : mul(factor, root));
  const first = add(mul(state.first, beta1), mul(scaled, (1 - beta1) / root));
  const second = add(mul(state.second, beta2), mul(scaled, scaled));
  // size · m / (√v / spread + ε), with the division taken out of the denominator.
  const spread = sqrt(oneMinusPower(beta2, step));
  const size = div(mul(rate, spread), oneMinusPower(beta1, step));
  const change = mul(div(first, add(sqrt(second), mul(spread, epsilon))), size);
  const kept = weightDecay === 0 ? state.weight : mul(state.weight, sub(1, mul(rate, weightDecay)));
  return { weight: sub(kept, change), first, second };
};

/** Exponential moving average: average · decay + value · (1 − decay). */
export const ema = (average: Value, value: Value, decay: number): Value =>
  add(mul(average, decay), mul(value, 1 - decay));

/**
 * 1 − β^t. For β near 1 and the first steps the difference would lose four of float32's seven digits, so that small
 * exponents go by their series.
 */
const oneMinusPower = (beta: number, step: Value): Value => {
  const a = mul(step, -Math.log(beta));
  const series = mul(a, sub(1, mul(a, sub(1 / 2, mul(a, sub(1 / 6, mul(a, 1 / 24)))))));
  return where(less(a, 0.03), series, sub(1, exp(mul(a, -1))));
};

/** √(Σ x²) over all elements of all values, a scalar. */
export const globalNorm = (values: readonly Value[]): Value => {
  if (values.length === 0) throw new GraphError("globalNorm: of no values");
  const squares = values.map((x) => reshape(reduceSum(mul(x, x), [...x.dims.keys()]), []));
  // The last first: it is the order in which a backward pass makes gradients, and ONNX Runtime descends into the chain of
  // sums first. The other way round it would go down to the first layer and hold every layer's gradient until it is back.
  return sqrt(squares.reduceRight((a, b) => add(a, b)));
};

/**
 * What gradients are to be scaled by so that their global norm is at most `limit` (Pascanu et al. 2013, algorithm 1; the
 * 10⁻⁶ is torch.nn.utils.clip_grad_norm_'s), and their norm as it is.
 */
export const clipByGlobalNorm = (
  gradients: readonly Value[],
  limit: number,
): { readonly factor: Value; readonly norm: Value } => {
  const norm = globalNorm(gradients);
  const ratio = div(limit, add(norm, 1e-6));
  // Written so that a norm that is no number gives 1: only the gradients to blame for it then spoil what is made of them.
  return { factor: where(less(ratio, 1), ratio, 1), norm };
};
