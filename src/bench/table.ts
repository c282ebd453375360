/** A bench's rows as one table: attacks down, cures across. */
import { percent, plain } from "../report/numbers.ts";
import { figureOf, type Row } from "./row.ts";

/** What a cell shows, each with how to take it from a row. */
export interface Column {
  readonly title: string;
  readonly text: (row: Row) => string;
}

const bound = (x: number): string => (100 * x).toFixed(1);

const share = (row: Row, name: string): string => {
  const figure = figureOf(row, name);
  if (figure === undefined) return "–";
  const { value, interval } = figure;
  return interval === undefined ? percent(value) : `${percent(value)} (${bound(interval[0])}–${bound(interval[1])})`;
};

export const COLUMNS: readonly Column[] = [
  { title: "Attack success before", text: (row) => share(row, "attack_success_before") },
  { title: "after (95 % interval)", text: (row) => share(row, "attack_success") },
  { title: "n", text: (row) => String(figureOf(row, "attack_success")?.n ?? "–") },
  { title: "Trigger removal", text: (row) => percent(figureOf(row, "trigger_removal")?.value ?? NaN) },
  { title: "Clean CLIP lost", text: (row) => percent(figureOf(row, "clip_drop")?.value ?? NaN) },
  { title: "FD-CLIP", text: (row) => plain(figureOf(row, "fd_clip")?.value ?? NaN) },
  { title: "Clean cosine", text: (row) => plain(figureOf(row, "clean_cosine")?.value ?? NaN) },
  { title: "Clean SSIM", text: (row) => plain(figureOf(row, "clean_ssim")?.value ?? NaN) },
  { title: "Region's IoU", text: (row) => plain(figureOf(row, "located_iou")?.value ?? NaN) },
  { title: "Token F1", text: (row) => plain(row.token_f1 ?? NaN) },
  { title: "Weights changed", text: (row) => String(row.weights ?? "–") },
  { title: "Cure, seconds", text: (row) => row.seconds.cure.toFixed(1) },
];

/** A number that was not measured reads as a dash. */
export const cellText = (column: Column, row: Row): string => column.text(row).replace(/^not a number$/, "–");

/** The table in Markdown, one line a cell, attacks together. */
export const markdown = (rows: readonly Row[]): string => {
  const seeds = new Set(rows.map((row) => row.seed)).size > 1;
  const head = ["Attack", "Cure", ...(seeds ? ["Seed"] : []), ...COLUMNS.map((c) => c.title)];
  const line = (cells: readonly string[]) => `| ${cells.map((c) => c.replaceAll("|", "\\|")).join(" | ")} |`;
  return [
    line(head),
    line(head.map((_, i) => i < 2 ? "---" : "---:")),
    ...rows.map((row) =>
      line([row.attack, row.cure, ...(seeds ? [String(row.seed)] : []), ...COLUMNS.map((c) => cellText(c, row))])
    ),
  ].join("\n");
};
