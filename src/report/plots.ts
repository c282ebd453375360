/** Plots as markup: bars as tables (the numbers stay readable as text), points and intervals as inline SVG. */
import { type Content, type Html, markup } from "./html.ts";
import { heatUri, scaleUri } from "./picture.ts";
import { largest, plain } from "./numbers.ts";
import type { Tensor } from "../tensor/tensor.ts";

const share = (x: number): string => (100 * Math.min(1, Math.max(0, x || 0))).toFixed(1);

export interface Bar {
  readonly label: Content;
  readonly value: number;
  /** The value as the reader sees it. */
  readonly text: string;
  readonly strong?: boolean;
}

/** Horizontal bars from 0, the longest as wide as there is room. */
export const bars = (rows: readonly Bar[], caption: Content, headings: readonly [string, string]): Html => {
  const most = largest(rows.map((r) => r.value), 1e-12);
  return markup`
    <table class="bars">
      <caption>${caption}</caption>
      <thead hidden>
        <tr>
          <th scope="col">${headings[0]}</th>
          <th></th>
          <th scope="col">${headings[1]}</th>
        </tr>
      </thead>
      <tbody>${
    rows.map(({ label, value, text, strong }) =>
      markup`
          <tr class="${strong && "strong"}">
            <th scope="row">${label}</th>
            <td class="track" aria-hidden="true"><i style="width:${share(value / most)}%"></i></td>
            <td class="n">${text}</td>
            </tr>
        `
    )
  }</tbody>
    </table>
  `;
};

/** A map [h, w] in colours, with a region's outline over it. */
export const heatMap = (map: Tensor, range: readonly [number, number], alt: string, outlined = ""): Html =>
  framed(heatUri(map, range[0], range[1]), alt, outlined, map.dims);

/** A picture with an outline, given in the cells of a grid [h, w] that covers it. Pixels stay sharp unless it is `fine`. */
export const framed = (uri: string, alt: string, outlined: string, grid: readonly number[], fine = false): Html =>
  markup`<span class="frame${fine && " fine"}"><img src="${uri}" alt="${alt}">${
    outlined !== "" &&
    markup`
      <svg viewBox="0 0 ${grid[1]} ${grid[0]}" preserveAspectRatio="none" aria-hidden="true">
        <path class="halo" d="${outlined}" />
        <path class="line" d="${outlined}" />
      </svg>
    `
  }</span>`;

/** What the colours of heat maps stand for. Ticks lie at 0…1 along the scale. */
export const colourScale = (unit: Content, ticks: ReadonlyArray<readonly [number, string]>): Html =>
  markup`
    <div class="scale"><img src="${scaleUri}" alt="Colour scale, dark to light: ${
    ticks.map(([, text]) => text).join(
      ", ",
    )
  }"><div class="ticks" aria-hidden="true">${
    ticks.map(([at, text]) => markup`<span style="left:${share(at)}%">${text}</span>`)
  }</div>${unit}</div>
  `;

export interface Point {
  readonly x: number;
  readonly y: number;
  readonly label: string;
  readonly chosen: boolean;
  /** Written beside the point; "chosen" by default where it is. */
  readonly name?: string;
}

const W = 520, H = 300, LEFT = 58, RIGHT = 16, TOP = 36, BOTTOM = 46;

/** Numbers 1, 2, 5 × 10ⁿ within a range, thinned until at most six are left. */
const logTicks = (low: number, high: number): number[] => {
  const all = [];
  for (let n = Math.floor(Math.log10(low)); n <= Math.ceil(Math.log10(high)); n++) {
    for (const m of [1, 2, 5]) all.push(m * 10 ** n);
  }
  const within = all.filter((t) => t >= low * 0.999 && t <= high * 1.001);
  return within.length <= 6 ? within : within.filter((t) => Number.isInteger(Math.round(1e9 * Math.log10(t)) / 1e9));
};

const linearTicks = (high: number): number[] => {
  const raw = high / 4, base = 10 ** Math.floor(Math.log10(raw));
  const step = base * ([1, 2, 5, 10].find((m) => m * base >= raw) ?? 10);
  return Array.from({ length: Math.floor(high / step + 1e-9) + 1 }, (_, i) => i * step);
};

export interface ScatterOptions {
  readonly title: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly xText: (x: number) => string;
  readonly yText: (y: number) => string;
  /** Dashed lines across, at values of y. */
  readonly levels: ReadonlyArray<{ readonly y: number; readonly label: string }>;
  /** A line behind the points, from left to right. */
  readonly line?: ReadonlyArray<{ readonly x: number; readonly y: number }>;
}

/** Points over a linear x from 0 and a logarithmic y. */
export const scatter = (points: readonly Point[], o: ScatterOptions): Html => {
  const shown = points.filter(({ x, y }) => Number.isFinite(x) && y > 0 && Number.isFinite(y));
  const line = (o.line ?? []).filter(({ y }) => y > 0 && Number.isFinite(y));
  const ys = [...[...shown, ...line].map((p) => p.y), ...o.levels.map((l) => l.y)].filter((y) =>
    y > 0 && Number.isFinite(y)
  );
  const low = Math.min(...ys) / 1.5, high = Math.max(...ys) * 1.25;
  const right = largest([...shown, ...line].map((p) => p.x), 1e-6) * 1.08;
  const px = (x: number) => (LEFT + (W - LEFT - RIGHT) * x / right).toFixed(1);
  const py = (y: number) => (H - BOTTOM - (H - TOP - BOTTOM) * (Math.log(y / low) / Math.log(high / low))).toFixed(1);
  const axis = H - BOTTOM;
  return markup`<svg class="plot" viewBox="0 0 ${W} ${H}" role="img" aria-label="${o.title}">
<title>${o.title}</title>
${
    logTicks(low, high).map((t) =>
      markup`
        <line class="grid" x1="${LEFT}" x2="${W - RIGHT}" y1="${py(t)}" y2="${py(t)}" />
        <text x="${LEFT - 8}" y="${py(t)}" dy="4" text-anchor="end">${o.yText(t)}</text>
      `
    )
  }
${linearTicks(right).map((t) => markup`<text x="${px(t)}" y="${axis + 18}" text-anchor="middle">${o.xText(t)}</text>`)}
<line class="axis" x1="${LEFT}" x2="${W - RIGHT}" y1="${axis}" y2="${axis}"/>
<text x="${W - RIGHT}" y="${H - 8}" text-anchor="end">${o.xLabel}</text><text x="0" y="12">${o.yLabel}</text>
${
    o.levels.map(({ y, label }) =>
      markup`
        <line class="level" x1="${LEFT}" x2="${W - RIGHT}" y1="${py(y)}" y2="${py(y)}" />
        <text x="${LEFT + 4}" y="${py(y)}" dy="-6">${label}</text>
      `
    )
  }
${
    line.length > 1 &&
    markup`<polyline class="curve" points="${line.map(({ x, y }) => `${px(x)},${py(y)}`).join(" ")}"/>`
  }
${
    [...shown].sort((a, b) => Number(a.chosen) - Number(b.chosen)).map(({ x, y, label, chosen, name }) => {
      const text = name ?? (chosen ? "chosen" : undefined);
      return markup`<g><title>${label}</title><circle class="dot${chosen && " pick"}" cx="${px(x)}" cy="${
        py(y)
      }" r="4.5"/>${chosen && markup`<circle class="ring" cx="${px(x)}" cy="${py(y)}" r="8.5" />`}${
        text !== undefined &&
        markup`
          <text class="${chosen && "strong"}" x="${px(x)}" y="${py(y)}" dx="${
          x > right / 2 ? -14 : 14
        }" dy="4" text-anchor="${x > right / 2 ? "end" : "start"}">${text}</text>
        `
      }</g>`;
    })
  }
</svg>`;
};

/** A value with its 95 % interval and the bound it must keep, as a line on a scale. */
export const intervalLine = (
  value: number,
  interval: readonly [number, number] | undefined,
  bound: number | undefined,
  [low, high]: readonly [number, number],
): Html | undefined => {
  const all = [value, ...(interval ?? []), ...(bound === undefined ? [] : [bound])];
  if (!all.every(Number.isFinite) || (interval === undefined && bound === undefined)) return undefined;
  const at = (x: number) => (4 + 120 * (x - low) / (high - low)).toFixed(1);
  const said = [
    `${plain(value)}`,
    interval && `interval ${plain(interval[0])} to ${plain(interval[1])}`,
    bound !== undefined && `bound ${plain(bound)}`,
  ].filter(Boolean).join(", ");
  return markup`<svg class="interval" viewBox="0 0 128 18" role="img" aria-label="${said}">
<line class="base" x1="4" x2="124" y1="9" y2="9"/>${
    interval && markup`<line class="span" x1="${at(interval[0])}" x2="${at(interval[1])}" y1="9" y2="9" />`
  }${bound !== undefined && markup`<line class="bound" x1="${at(bound)}" x2="${at(bound)}" y1="1" y2="17" />`}
<circle class="at" cx="${at(value)}" cy="9" r="3.4"/></svg>`;
};
