/** What the checks of a device feed and how they judge. */

/** Fixed numbers in (-1, 1) without a pattern. */
export const fixedNumbers = (salt: number, length: number): Float32Array =>
  Float32Array.from({ length }, (_, i) => {
    const x = Math.sin((i + 1) * 12.9898 + salt * 78.233) * 43758.5453;
    return 2 * (x - Math.floor(x)) - 1;
  });

/** Largest error relative to the largest wanted value; infinite for a wrong length or NaN. */
export const worst = (got: ArrayLike<number | bigint>, want: Float64Array): number => {
  if (got.length !== want.length) return Infinity;
  const scale = want.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
  let error = 0;
  // Not Math.max: it would let a NaN through only on one side.
  for (let i = 0; i < want.length; i++) {
    const e = Math.abs(Number(got[i]) - want[i]) / scale;
    if (!(e <= error)) error = Number.isNaN(e) ? Infinity : e;
  }
  return error;
};
