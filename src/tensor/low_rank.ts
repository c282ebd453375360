/** Matrices that share one small row space: the best approximation of all of them together (Eckart and Young 1936). */
import { eigen } from "./eigen.ts";
import { gram, matmul, transpose } from "./linalg.ts";
import { sameDims, type Tensor } from "./tensor.ts";

export interface LowRank {
  /** [rank, D], orthonormal rows. */
  readonly down: Tensor;
  /** For each matrix, [out, rank]: up · down is the approximation. */
  readonly up: readonly Tensor[];
}

/**
 * The factors of least rank with Σ‖Mᵢ − upᵢ · down‖² ≤ tolerance² Σ‖Mᵢ‖².
 * @param matrices [outᵢ, D] each, D the same for all.
 */
export const lowRank = (matrices: readonly Tensor[], tolerance: number): LowRank => {
  const width = matrices[0]?.dims[1] ?? 0;
  if (!matrices.every((m) => sameDims(m.dims, [m.dims[0], width]))) {
    throw new RangeError(`lowRank: matrices [${matrices.map((m) => m.dims.join(", ")).join("], [")}] differ in width`);
  }
  const moments = new Float64Array(width * width);
  for (const { data, dims: [out] } of matrices) {
    gram(data, data, out, width, width).forEach((x, i) => moments[i] += x);
  }
  const { values, vectors } = eigen(moments, width);
  let left = tolerance ** 2 * values.reduce((a, b) => a + Math.max(0, b), 0);
  // Ascending: those that go first are the least.
  const cut = values.findIndex((v) => (left -= Math.max(0, v)) < 0);
  const rank = cut < 0 ? 0 : width - cut;
  const down = vectors.subarray((width - rank) * width);
  const across = transpose(down, rank, width);
  return {
    down: { dims: [rank, width], data: Float32Array.from(down) },
    up: matrices.map(({ data, dims: [out] }) => ({
      dims: [out, rank],
      data: Float32Array.from(matmul(data, across, out, width, rank)),
    })),
  };
};

/**
 * One matrix in two factors of the least rank with ‖M − up · down‖ ≤ tolerance · ‖M‖, both of the same size (each takes the
 * root of every singular value), so that neither runs out of a short element type's range. Rank 0 for a matrix of zeros.
 * @param matrix [out, in]
 */
export const factorise = (matrix: Tensor, tolerance: number): { readonly down: Tensor; readonly up: Tensor } => {
  const [out, width] = matrix.dims;
  // The eigenvalues are those of the smaller side's products.
  const wide = width > out;
  const own: Tensor = wide
    ? { dims: [width, out], data: Float32Array.from(transpose(matrix.data, out, width)) }
    : matrix;
  const { down, up: [up] } = lowRank([own], tolerance);
  const [rank, columns] = down.dims, rows = own.dims[0];
  const roots = Array.from({ length: rank }, (_, r) => {
    let square = 0;
    for (let i = 0; i < rows; i++) square += up.data[i * rank + r] ** 2;
    return Math.sqrt(Math.sqrt(square)) || 1;
  });
  const first = down.data.map((x, i) => x * roots[Math.floor(i / columns)]);
  const second = up.data.map((x, i) => x / roots[i % rank]);
  return wide
    ? {
      down: { dims: [rank, width], data: Float32Array.from(transpose(second, rows, rank)) },
      up: { dims: [out, rank], data: Float32Array.from(transpose(first, rank, columns)) },
    }
    : { down: { dims: [rank, width], data: first }, up: { dims: [out, rank], data: second } };
};
