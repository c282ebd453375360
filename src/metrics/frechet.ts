/** Fréchet distance between two sets of features. */
import { eigen, eigenvalues } from "../tensor/eigen.ts";
import { gram, matmul, transpose } from "../tensor/linalg.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** A set of rows less their mean, over √(n − 1): its gram matrix XᵀX is the sample covariance. */
interface Centred {
  readonly mean: Float64Array;
  readonly rows: Float64Array;
  readonly n: number;
}

const centred = ({ dims: [n, d], data }: Tensor): Centred => {
  const mean = new Float64Array(d);
  for (let i = 0; i < data.length; i++) mean[i % d] += data[i] / n;
  const rows = new Float64Array(data.length);
  for (let i = 0; i < data.length; i++) rows[i] = (data[i] - mean[i % d]) / Math.sqrt(n - 1);
  return { mean, rows, n };
};

/** Rows R, at most d of them, with RᵀR the covariance: the centred rows themselves, or Λ^½V from its eigenvectors. */
const root = ({ rows, n }: Centred, d: number): { rows: Float64Array; n: number } => {
  if (n <= d) return { rows, n };
  const { values, vectors } = eigen(gram(rows, rows, n, d, d), d);
  return { rows: vectors.map((v, i) => v * Math.sqrt(Math.max(0, values[Math.floor(i / d)]))), n: d };
};

const sumOfSquares = (values: Float64Array): number => values.reduce((sum, v) => sum + v * v, 0);

/**
 * ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½), the squared Fréchet (Wasserstein-2) distance between the normal distributions
 * fitted to both sets (Dowson and Landau, 1982). Over CLIP picture features it is called fdClip, FD-CLIP in reports: its
 * values cannot be compared with FID, which takes Inception features. With RᵀR = Σ₁ and XᵀX = Σ₂, tr(Σ₁Σ₂)^½ is the sum
 * of the square roots of the eigenvalues of RΣ₂Rᵀ = (RXᵀ)(RXᵀ)ᵀ, which holds for singular Σ too (fewer rows than
 * features).
 *
 * It is biased: two small samples of one distribution are some way apart. Compare only figures from equally many rows.
 *
 * @param a features [n, d], n ≥ 2
 * @param b features [m, d], m ≥ 2
 * @throws RangeError when the dims do not fit or there are fewer than two rows
 */
export const frechetDistance = (a: Tensor, b: Tensor): number => {
  const d = a.dims[1];
  if (a.dims.length !== 2 || b.dims.length !== 2 || b.dims[1] !== d || a.dims[0] < 2 || b.dims[0] < 2) {
    throw new RangeError(
      `frechetDistance: takes features [n, d] and [m, d] with n, m ≥ 2, not [${a.dims.join(", ")}] and [${
        b.dims.join(", ")
      }]`,
    );
  }
  const [first, second] = [centred(a), centred(b)].sort((x, y) => x.n - y.n); // the smaller gives the smaller matrix
  const r = root(first, d);
  const cross = matmul(r.rows, transpose(second.rows, second.n, d), r.n, d, second.n);
  const middle = matmul(cross, transpose(cross, r.n, second.n), r.n, second.n, r.n);
  let distance = sumOfSquares(first.rows) + sumOfSquares(second.rows);
  for (const value of eigenvalues(middle, r.n)) distance -= 2 * Math.sqrt(Math.max(0, value));
  for (let j = 0; j < d; j++) distance += (first.mean[j] - second.mean[j]) ** 2;
  return Math.max(0, distance); // rounding may fall short of 0 when both are the same
};
