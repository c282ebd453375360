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

const value = (row: Row, name: string): number => figureOf(row, name)?.value ?? NaN;

export const COLUMNS: readonly Column[] = [
  { title: "Attack success before", text: (row) => share(row, "attack_success_before") },
  { title: "after (95 % interval)", text: (row) => share(row, "attack_success") },
  { title: "n", text: (row) => String(figureOf(row, "attack_success")?.n ?? "–") },
  { title: "Trigger removal", text: (row) => percent(value(row, "trigger_removal")) },
  { title: "Clean CLIP lost", text: (row) => percent(value(row, "clip_drop")) },
  { title: "FD-CLIP", text: (row) => plain(value(row, "fd_clip")) },
  { title: "to unpoisoned, before", text: (row) => plain(value(row, "fd_clip_before")) },
  { title: "after", text: (row) => plain(value(row, "fd_clip_after")) },
  { title: "rise", text: (row) => percent(value(row, "fd_clip_rise")) },
  { title: "Clean CLIP before", text: (row) => plain(value(row, "clip_before")) },
  { title: "after", text: (row) => plain(value(row, "clip")) },
  { title: "Clean cosine", text: (row) => plain(value(row, "clean_cosine")) },
  { title: "Clean SSIM", text: (row) => plain(value(row, "clean_ssim")) },
  { title: "Region's IoU", text: (row) => plain(value(row, "located_iou")) },
  { title: "Token F1", text: (row) => plain(row.token_f1 ?? NaN) },
  { title: "Found in clean pictures", text: (row) => share(row, "attack_false_positives") },
  { title: "in the unpoisoned model's", text: (row) => share(row, "effect_unpoisoned") },
  { title: "with the trigger", text: (row) => share(row, "effect_unpoisoned_triggered") },
  { title: "Target kept, before", text: (row) => share(row, "target_kept_before") },
  { title: "after", text: (row) => share(row, "target_kept") },
  { title: "Tensors changed", text: (row) => String(row.weights ?? "–") },
  { title: "Cure, seconds", text: (row) => row.seconds.cure.toFixed(1) },
  { title: "with all before it", text: (row) => row.seconds.total.toFixed(1) },
  { title: "Peak memory", text: (row) => row.peak === undefined ? "–" : `${(row.peak / 1e9).toFixed(2)} GB` },
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
