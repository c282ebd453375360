/**
 * The closed-form cure. Text reaches the U-Net only through attn2.to_k and attn2.to_v, so a linear map of the text
 * embeddings, folded into those weights, can send triggered embeddings where they belong and leave the others alone.
 *
 * With rows T (triggered embeddings), A (what they should be) and R (embeddings to keep), for each such weight W:
 *
 *     W' = argmin ‖T W'ᵀ − A Wᵀ‖²/n + λ ‖R W'ᵀ − R Wᵀ‖²/r + μ ‖W' − W‖²  =  W X
 *     X  = (AᵀT/n + λ RᵀR/r + μI) (TᵀT/n + λ RᵀR/r + μI)⁻¹
 *
 * X is one matrix for all layers. It is the ridge regression behind UCE (Gandikota et al., WACV 2024, eq. 7) and
 * EvilEdit, turned against the trigger: the same edit that plants one takes it out.
 */
import { cholesky, gram, matmul, solve, transpose } from "../tensor/linalg.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** Second moments of the rows; all that any choice of λ and μ needs. D is the width of the embeddings. */
export interface Moments {
  readonly width: number;
  /** TᵀT/n, [D, D] */
  readonly triggered: Float64Array;
  /** AᵀT/n, [D, D] */
  readonly wanted: Float64Array;
  /** RᵀR/r, [D, D] */
  readonly keep: Float64Array;
  /** ‖A‖²/n and ‖R − mean R‖²/r. */
  readonly wantedSquare: number;
  readonly keepVariance: number;
}

/** What a batch of rows adds to the moments; batches add up, so that the rows of many texts need never be held at once. */
export interface MomentSums {
  readonly width: number;
  readonly n: number;
  readonly r: number;
  /** TᵀT, AᵀT and RᵀR, [D, D] */
  readonly triggered: Float64Array;
  readonly wanted: Float64Array;
  readonly keep: Float64Array;
  readonly wantedSquare: number;
  /** Σ R over the rows, [D] */
  readonly keepSum: Float64Array;
}

/**
 * Sums over rows T, A [n, D] and R [r, D]; leading axes are flattened.
 * @param same sums of the same T and R with another A: what does not depend on A is taken from them.
 */
export const momentSums = (triggered: Tensor, wanted: Tensor, keep: Tensor, same?: MomentSums): MomentSums => {
  const width = triggered.dims.at(-1)!;
  const n = triggered.data.length / width;
  const r = keep.data.length / width;
  if (wanted.data.length !== triggered.data.length || keep.dims.at(-1) !== width) {
    throw new RangeError(`closed form: T [${triggered.dims}], A [${wanted.dims}] and R [${keep.dims}] do not fit`);
  }
  const ofWanted = {
    wanted: gram(wanted.data, triggered.data, n, width, width),
    wantedSquare: sumOfSquares(wanted.data),
  };
  if (same !== undefined) return { ...same, ...ofWanted };
  const keepSum = new Float64Array(width);
  keep.data.forEach((x, i) => keepSum[i % width] += x);
  return {
    width,
    n,
    r,
    triggered: gram(triggered.data, triggered.data, n, width, width),
    keep: gram(keep.data, keep.data, r, width, width),
    keepSum,
    ...ofWanted,
  };
};

/** The sums of both batches' rows. */
export const addSums = (a: MomentSums, b: MomentSums): MomentSums => {
  const add = (x: Float64Array, y: Float64Array) => x.map((v, i) => v + y[i]);
  return {
    width: a.width,
    n: a.n + b.n,
    r: a.r + b.r,
    triggered: add(a.triggered, b.triggered),
    wanted: add(a.wanted, b.wanted),
    keep: add(a.keep, b.keep),
    wantedSquare: a.wantedSquare + b.wantedSquare,
    keepSum: add(a.keepSum, b.keepSum),
  };
};

export const momentsOf = (s: MomentSums): Moments => {
  const per = (m: Float64Array, count: number) => m.map((x) => x / count);
  const meanSquare = s.keepSum.reduce((sum, x) => sum + (x / s.r) ** 2, 0);
  return {
    width: s.width,
    triggered: per(s.triggered, s.n),
    wanted: per(s.wanted, s.n),
    keep: per(s.keep, s.r),
    wantedSquare: s.wantedSquare / s.n,
    keepVariance: trace(s.keep, s.width) / s.r - meanSquare,
  };
};

/** Moments of rows T, A [n, D] and R [r, D]; leading axes are flattened. */
export const moments = (triggered: Tensor, wanted: Tensor, keep: Tensor): Moments =>
  momentsOf(momentSums(triggered, wanted, keep));

export interface Solution {
  /** [D, D]; a weight W [out, D] becomes W X. */
  readonly x: Float64Array;
  /** ‖T Xᵀ − A‖² / ‖T − A‖²: what is left of the trigger, 0 at best, 1 for no cure. */
  readonly residual: number;
  /** ‖R Xᵀ − R‖² / ‖R − mean R‖²: what the kept embeddings lose. */
  readonly keepResidual: number;
}

/** The map for one λ and μ. @throws NotPositiveDefinite when μ is 0 and the rows do not span the space. */
export const solveClosedForm = (m: Moments, lambda: number, mu: number): Solution => {
  const d = m.width;
  const ridge = (a: Float64Array) => a.map((x, i) => x + lambda * m.keep[i] + (i % (d + 1) === 0 ? mu : 0));
  // X C = B with C symmetric, so C Xᵀ = Bᵀ.
  const xt = solve(cholesky(ridge(m.triggered), d), d, transpose(ridge(m.wanted), d, d), d);
  const x = transpose(xt, d, d);
  const left = quadratic(x, m.triggered, d) - 2 * inner(x, m.wanted) + m.wantedSquare;
  const before = trace(m.triggered, d) - 2 * trace(m.wanted, d) + m.wantedSquare;
  const moved = x.map((v, i) => i % (d + 1) === 0 ? v - 1 : v);
  return { x, residual: Math.max(0, left) / before, keepResidual: quadratic(moved, m.keep, d) / m.keepVariance };
};

/** W X for a weight W [out, D]. */
export const applyTo = (weight: Tensor, { x }: Solution): Tensor => {
  const [out, d] = weight.dims;
  return { dims: weight.dims, data: Float32Array.from(matmul(weight.data, x, out, d, d)) };
};

/** The keys of the weights through which text enters a U-Net. */
export const isTextWeight = (key: string): boolean => /\.attn2\.to_[kv]\.weight$/.test(key);

const sumOfSquares = (a: ArrayLike<number>): number => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * a[i];
  return sum;
};

const trace = (a: Float64Array, d: number): number => {
  let sum = 0;
  for (let i = 0; i < d; i++) sum += a[i * d + i];
  return sum;
};

/** Σ aᵢⱼ bᵢⱼ */
const inner = (a: Float64Array, b: Float64Array): number => a.reduce((sum, x, i) => sum + x * b[i], 0);

/** tr(X G Xᵀ) */
const quadratic = (x: Float64Array, g: Float64Array, d: number): number => inner(matmul(x, g, d, d, d), x);
