/** Writing to the terminal: results on stdout, progress and errors on stderr. */
import process from "node:process";

export interface Screen {
  /** Whether progress can be drawn over itself. */
  readonly live: boolean;
  readonly columns: () => number;
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
}

export const screen = (): Screen => ({
  live: process.stderr.isTTY === true && process.env.TERM !== "dumb",
  columns: () => process.stderr.columns || 80,
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
});

/** Seconds as a person says them: `0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`. */
export const duration = (seconds: number): string => {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  const minutes = Math.round(whole / 60);
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
};

/** Rows with their columns lined up. */
export const table = (rows: ReadonlyArray<ReadonlyArray<string>>, indent = ""): string => {
  const last = (rows[0]?.length ?? 0) - 1;
  // One long cell must not push the last column off the screen: cells before it are cut.
  const shown = rows.map((row) =>
    row.map((cell, i) => i < last && cell.length > WIDEST ? `${cell.slice(0, WIDEST - 1)}…` : cell)
  );
  const widths = (shown[0] ?? []).map((_, i) => Math.max(...shown.map((row) => (row[i] ?? "").length)));
  return shown.map((row) => indent + row.map((cell, i) => cell.padEnd(widths[i])).join("  ").trimEnd()).join("\n");
};

const WIDEST = 44;
