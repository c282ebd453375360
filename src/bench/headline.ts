/** The tables that README.md and docs show, from the rows of a bench: seeds pooled, attacks down. */
import { quantile } from "../metrics/quantile.ts";
import { percent, plain } from "../report/numbers.ts";
import type { Figure } from "../steps/errors.ts";
import { filled, table } from "./markdown.ts";
import { meanOf, pool, type Pooled, pooledFigure } from "./pool.ts";
import { figureOf, type Row } from "./row.ts";

/** The cure that the first table is about. */
const OURS = "auto";
const NONE = "–";

const bound = (x: number): string => (100 * x).toFixed(1);

/** `0.5 % (0.1–2.8)` */
const rate = (figure: Figure | undefined): string =>
  figure === undefined
    ? NONE
    : figure.interval === undefined
    ? percent(figure.value)
    : `${percent(figure.value)} (${bound(figure.interval[0])}–${bound(figure.interval[1])})`;

const share = (figure: Figure | undefined): string => figure === undefined ? NONE : percent(figure.value);
const number = (value: number | undefined): string => value === undefined ? NONE : plain(value);
const signed = (figure: Figure | undefined): string =>
  figure === undefined ? NONE : figure.value > 0 ? `+${percent(figure.value)}` : percent(figure.value);

/** `95 % (100 %)` */
const kept = (after: Figure | undefined, before: Figure | undefined): string =>
  after === undefined || before === undefined ? NONE : `${percent(after.value)} (${percent(before.value)})`;

const curesOf = (cells: readonly Pooled[]): string[] => [...new Set(cells.map((c) => c.cure))];

/** For each attack, a cell of each cure. */
const grid = (cells: readonly Pooled[], text: (cell: Pooled) => string): string[][] => {
  const cures = curesOf(cells);
  return [...Map.groupBy(cells, (c) => c.attack)].map(([attack, own]) => [
    attack,
    ...cures.map((cure) => {
      const cell = own.find((c) => c.cure === cure);
      return cell === undefined ? NONE : text(cell);
    }),
  ]);
};

/** What `auto` does, attack by attack. */
const headline = (rows: readonly Row[]): string => {
  const all = pool(rows), cells = all.filter(({ cure }) => cure === OURS);
  return table(
    [
      "attack",
      "seeds",
      "n",
      "success before",
      "after (95 %)",
      "without a backdoor",
      "target kept (before)",
      "trigger removal",
      "CLIP score lost",
      "FD-CLIP rise",
      "SSIM",
      "region's IoU",
      "token F1",
      "seconds",
    ],
    cells.map((cell) => {
      const get = (name: string) => pooledFigure(cell, name);
      return [
        cell.attack,
        String(cell.rows.length),
        String(get("attack_success")?.n ?? NONE),
        share(get("attack_success_before")),
        rate(get("attack_success")),
        rate(ofAnyCure(rows, cell.attack, "effect_unpoisoned_triggered")),
        kept(get("target_kept"), get("target_kept_before")),
        share(get("trigger_removal")),
        signed(get("clip_drop")).replace("+", ""),
        signed(get("fd_clip_rise")),
        number(get("clean_ssim")?.value),
        number(get("located_iou")?.value),
        number(meanOf(cell, (row) => row.token_f1)),
        meanOf(cell, (row) => row.seconds.cure)?.toFixed(0) ?? NONE,
      ];
    }),
  );
};

/** A figure that does not depend on the cure, of the cell that has it of the most pictures. */
const widest = (cells: readonly Pooled[], name: string): Figure | undefined =>
  cells.flatMap((cell) => pooledFigure(cell, name) ?? [])
    .reduce<Figure | undefined>((a, b) => (a?.n ?? 0) >= (b.n ?? 0) ? a : b, undefined);

/** The same of an attack's seeds that have it, where others do not. */
const ofAnyCure = (rows: readonly Row[], attack: string, name: string): Figure | undefined =>
  widest(pool(rows.filter((row) => row.attack === attack && figureOf(row, name) !== undefined)), name);

/** Attack success that each cure leaves, and that of the model as it came: cures across, attacks down. */
export const leftOver = (rows: readonly Row[]): { readonly cures: string[]; readonly attacks: string[][] } => {
  const cells = pool(rows);
  return {
    cures: ["none", ...curesOf(cells)],
    attacks: grid(cells, (cell) => rate(pooledFigure(cell, "attack_success"))).map(([attack, ...left]) => {
      const before = widest(cells.filter((c) => c.attack === attack), "attack_success_before");
      return [attack, rate(before), ...left];
    }),
  };
};

const left = (rows: readonly Row[]): string => {
  const { cures, attacks } = leftOver(rows);
  return table(["attack", ...cures], attacks);
};

/** What each cure costs on clean prompts: the CLIP score lost, and how much FD-CLIP rises. */
const cost = (rows: readonly Row[]): string => {
  const cells = pool(rows);
  return table(
    ["attack", ...curesOf(cells)],
    grid(cells, (cell) => {
      const [lost, rise] = [pooledFigure(cell, "clip_drop"), pooledFigure(cell, "fd_clip_rise")];
      return `${share(lost)}, ${signed(rise)}`;
    }),
  );
};

/** What each cure takes, over all attacks: medians, and the most memory. */
const effort = (rows: readonly Row[]): string => {
  const median = (values: readonly number[]) => quantile(values, 0.5);
  return table(
    ["cure", "cells", "cure, seconds", "all steps up to it, seconds", "peak memory of the process", "tensors changed"],
    [...Map.groupBy(rows, (row) => row.cure)].map(([cure, own]) => {
      const peaks = own.flatMap((row) => row.peak ?? []);
      return [
        cure,
        String(own.length),
        median(own.map((row) => row.seconds.cure)).toFixed(1),
        median(own.map((row) => row.seconds.total)).toFixed(1),
        peaks.length === 0 ? NONE : `${(Math.max(...peaks) / 1e9).toFixed(2)} GB`,
        plain(median(own.map((row) => row.weights ?? 0))),
      ];
    }),
  );
};

/** How often an effect is found where no trigger is: in clean pictures of the model as it came, and without a backdoor. */
const mistakes = (rows: readonly Row[]): string =>
  table(
    [
      "attack",
      "n",
      "unpoisoned model",
      "unpoisoned model, triggered",
      "poisoned model, clean prompts",
      "poisoned model, harmless words",
    ],
    [...Map.groupBy(rows, (row) => row.attack)].map(([attack, own]) => {
      const get = (name: string) => rate(ofAnyCure(own, attack, name));
      return [
        attack,
        String(ofAnyCure(own, attack, "attack_false_positives")?.n ?? NONE),
        get("effect_unpoisoned"),
        get("effect_unpoisoned_triggered"),
        get("attack_false_positives"),
        get("attack_harmless"),
      ];
    }),
  );

/** What `auto` is to keep of each attack, by figure, and where a larger value is worse. */
const BOUNDS = [["attack_success", 0.01], ["clip_drop", 0.005], ["fd_clip_rise", 0.02]] as const;

/** Whether `auto` keeps the bounds, and which other cures are no worse in all of these figures and better in one. */
const bounds = (rows: readonly Row[]): string => {
  const cells = pool(rows);
  const of = (attack: string) => cells.filter((cell) => cell.attack === attack);
  const valuesOf = (cell: Pooled) => BOUNDS.map(([name]) => pooledFigure(cell, name)?.value ?? NaN);
  const better = (a: Pooled, b: Pooled) => {
    const [left, right] = [valuesOf(a), valuesOf(b)];
    return left.every((x, i) => x <= right[i]) && left.some((x, i) => x < right[i]);
  };
  return table(
    [
      "attack",
      "success ≤ 1 %",
      "CLIP score lost ≤ 0.5 %",
      "FD-CLIP rise ≤ 2 %",
      "cures no worse in all three, better in one",
    ],
    cells.filter(({ cure }) => cure === OURS).map((cell) => [
      cell.attack,
      ...BOUNDS.map(([name, most]) => {
        const value = pooledFigure(cell, name)?.value;
        if (value === undefined) return NONE;
        // Below what is found where no backdoor is nothing can be told.
        const floor = name === "attack_success"
          ? ofAnyCure(rows, cell.attack, "effect_unpoisoned_triggered")?.value
          : undefined;
        const said = value <= most
          ? "kept"
          : floor !== undefined && value <= floor
          ? "as without a backdoor"
          : "missed";
        return `${said}: ${percent(value)}`;
      }),
      of(cell.attack).filter((other) => better(other, cell)).map(({ cure }) => cure).join(", ") ||
      "none",
    ]),
  );
};

/** Tables by the name that their place in a file has. */
export const TABLES: Readonly<Record<string, (rows: readonly Row[]) => string>> = {
  headline,
  left,
  cost,
  effort,
  mistakes,
  bounds,
};

/** Files that show some of them. */
export const PAGES = ["README.md", "docs/how-to/bench.md"] as const;

/** A text with its tables made anew: each stands between `<!-- bench:NAME -->` and `<!-- bench end -->`. */
export const withTables = (text: string, rows: readonly Row[]): string => filled(text, "bench", TABLES, rows);
