/** Numbers as a reader wants them: as many digits as mean something, with a true minus and a unit. */

const minus = (text: string): string => text.replace(/^-/, "−");

/** About three significant digits. */
export const plain = (x: number): string => {
  if (!Number.isFinite(x)) return Number.isNaN(x) ? "not a number" : x > 0 ? "∞" : "−∞";
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size >= 1e6 || size < 1e-4) return minus(x.toExponential(1));
  if (size >= 100) return minus(x.toFixed(0));
  return minus(String(Number(x.toPrecision(3))));
};

/** As `plain`, with all three digits, so that numbers of a kind line up. */
export const fixed = (x: number): string =>
  Number.isInteger(x) || Math.abs(x) < 1e-3 || Math.abs(x) >= 100 ? plain(x) : minus(x.toPrecision(3));

/** A share as `97.9 %`, unbroken. */
export const percent = (x: number): string => {
  if (!Number.isFinite(x)) return plain(x);
  const value = 100 * x;
  const digits = Math.abs(value) < 1 && value !== 0 ? 2 : 1;
  return `${minus(value.toFixed(digits))}\u00a0%`;
};

/** A natural logarithm of a ratio as the ratio: `×12`. */
export const times = (ln: number): string => `×${plain(Number(Math.exp(ln).toPrecision(2)))}`;

export const duration = (seconds: number): string => {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(whole / 3600)} h ${String(Math.floor(whole % 3600 / 60)).padStart(2, "0")} min`;
};

/** `1 picture`, `2 pictures`. */
export const count = (n: number, one: string, many = `${one}s`): string => `${n} ${n === 1 ? one : many}`;

export const largest = (values: Iterable<number>, least = -Infinity): number => {
  let m = least;
  for (const v of values) if (v > m) m = v;
  return m;
};
