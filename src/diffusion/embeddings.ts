/** Texts as a U-Net is conditioned on them. Where no more than the cross-attention matters, they are a plain tensor. */
import { concat0, slice0, type Tensor, zeros } from "../tensor/tensor.ts";

/** States of tokens [..., L, D], those of two encoders side by side; SDXL's models take each text pooled as well. */
export interface Embeddings extends Tensor {
  /** [..., Q] with the same leading axes */
  readonly pooled?: Tensor;
}

/** The same done to the states and to the pooled texts; it may only touch the axes that they share. */
export const eachEmbedding = (e: Embeddings, change: (t: Tensor) => Tensor): Embeddings =>
  withPooled(change(e), e.pooled && change(e.pooled));

export const withPooled = ({ dims, data }: Tensor, pooled: Tensor | undefined): Embeddings => ({
  dims,
  data,
  ...(pooled === undefined ? {} : { pooled }),
});

/** Texts `begin` to `end` of the first axis. */
export const sliceEmbeddings = (e: Embeddings, begin: number, end: number): Embeddings =>
  eachEmbedding(e, (t) => slice0(t, begin, end));

/** Joins texts along the first axis. @throws TypeError when some are pooled and others not */
export const joinEmbeddings = (parts: readonly Embeddings[]): Embeddings => {
  const pooled = parts.flatMap((p) => p.pooled === undefined ? [] : [p.pooled]);
  if (pooled.length > 0 && pooled.length < parts.length) {
    throw new TypeError("some of the texts have lost their pooled form");
  }
  return withPooled(concat0(parts), pooled.length === 0 ? undefined : concat0(pooled));
};

/** The first axis as several: [n, …] → [...first, …]. */
export const splitEmbeddings = (e: Embeddings, first: readonly number[]): Embeddings =>
  eachEmbedding(e, ({ dims, data }) => ({ dims: [...first, ...dims.slice(1)], data }));

/** The first axes as one: [P, R, …] → [P·R, …]. */
export const flatEmbeddings = (e: Embeddings): Embeddings =>
  eachEmbedding(e, ({ dims: [p, r, ...rest], data }) => ({ dims: [p * r, ...rest], data }));

/** Text r of row p of [P, R, …], as [1, …]. */
export const embeddingAt = (e: Embeddings, p: number, r: number): Embeddings => {
  const at = p * e.dims[1] + r;
  return sliceEmbeddings(flatEmbeddings(e), at, at + 1);
};

/** Nothing at all, in the shape of the texts: what SDXL's guidance steers away from. */
export const zeroEmbeddings = (e: Embeddings): Embeddings => eachEmbedding(e, ({ dims }) => zeros(dims));
