/**
 * The one colour scale of the report, perceptually uniform by construction: in OKLab (B. Ottosson, 2020) lightness rises
 * in proportion to the value while the hue turns from violet over red to yellow. So it also reads in grey, in print and
 * without colour vision.
 */

export type Rgb = readonly [number, number, number];

const LIGHTNESS = [0.2, 0.94] as const;
/** Degrees, from the dark end to the light one. */
const HUE = [292, 460] as const;
/** The largest chroma on the way that sRGB holds at every lightness and hue of this path. */
const CHROMA = 0.15;

const gamma = (x: number): number => x <= 0.0031308 ? 12.92 * x : 1.055 * x ** (1 / 2.4) - 0.055;

const toRgb = (lightness: number, a: number, b: number): Rgb => {
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const channel = (x: number) => Math.round(255 * gamma(Math.min(1, Math.max(0, x))));
  return [
    channel(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s),
    channel(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s),
    channel(-0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s),
  ];
};

const between = ([from, to]: readonly [number, number], t: number): number => from + (to - from) * t;

/** The colour at t in [0, 1]; what lies outside takes the nearest end, NaN the dark one. */
export const colour = (t: number): Rgb => {
  const at = t >= 0 ? Math.min(1, t) : 0;
  const hue = between(HUE, at) * Math.PI / 180;
  // Little chroma at both ends, where sRGB has no room for more.
  const chroma = CHROMA * Math.sin(Math.PI * (0.12 + 0.76 * at));
  return toRgb(between(LIGHTNESS, at), chroma * Math.cos(hue), chroma * Math.sin(hue));
};
