/**
 * Sine and cosine, made of products and sums. WGSL lets its own be off by 2⁻¹¹ and says nothing of what they give beyond
 * ±π; diffusion models ask for angles up to 1000.
 */
import type { Value } from "../graph.ts";
import { cast, div, mul, sub } from "./elementwise.ts";

/** 2π in three parts (Cody and Waite 1980): multiples of the first two up to 2¹⁰ are exact in float32. */
const TURN = [6.28125, 0.0019350051879882812, 3.0199159819567077e-7];
/** The angle is halved so often before the series, and the results doubled as often after it. */
const HALVINGS = 4;

/**
 * sin x and cos x of float32 angles, |x| ≤ 6000, each within 2·10⁻⁵.
 * @param x the gradient passes through the angle that is left after whole turns.
 */
export const sinCos = (x: Value): { readonly sin: Value; readonly cos: Value } => {
  const turns = cast(cast(div(x, 2 * Math.PI), "int32"), "float32");
  const rest = TURN.reduce((angle, part) => sub(angle, mul(turns, part)), x);
  const a = div(rest, 2 ** HALVINGS);
  const square = mul(a, a);
  /** 1 − a²/d₁ (1 − a²/d₂ (…)) */
  const series = ([d, ...more]: readonly number[]): Value =>
    sub(1, mul(more.length === 0 ? square : mul(square, series(more)), 1 / d));
  let sin = mul(a, series([2 * 3, 4 * 5, 6 * 7]));
  let cos = series([1 * 2, 3 * 4, 5 * 6, 7 * 8]);
  for (let i = 0; i < HALVINGS; i++) [sin, cos] = [mul(mul(sin, cos), 2), sub(1, mul(mul(sin, sin), 2))];
  return { sin, cos };
};
