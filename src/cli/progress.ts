/** A run as it is seen: one live line a step on a terminal, plain lines elsewhere, one JSON object a line for programs. */
import { Effect } from "effect";
import type { OnEvent, RunEvent } from "../pipeline/events.ts";
import { duration, type Screen } from "./terminal.ts";

export interface ProgressView {
  readonly onEvent: OnEvent;
  /** Leaves the live line behind, so that something else can be written. */
  readonly end: () => void;
}

const head = (e: { index: number; count: number; name: string; use: string }): string =>
  `[${e.index}/${e.count}] ${e.name}${e.use === e.name ? "" : ` (${e.use})`}`;

/** NDJSON on stdout. */
export const jsonView = (screen: Screen): ProgressView => ({
  onEvent: (event) => Effect.sync(() => screen.out(`${JSON.stringify(event)}\n`)),
  end: () => {},
});

const progressText = (e: Extract<RunEvent, { status: "progress" }>): string => {
  const left = e.left === undefined ? "" : `, ${duration(e.left)} left`;
  return `${e.progress.toFixed(0).padStart(3)} %  ${duration(e.seconds)}${left}${
    e.note === undefined ? "" : `  ${e.note}`
  }`;
};

const doneText = (e: Extract<RunEvent, { status: "done" }>): string =>
  `✓ ${head(e)}  ${e.cached ? `cached (took ${duration(e.seconds)})` : duration(e.seconds)}`;

/** One line a step, drawn over itself. */
export const liveView = (screen: Screen): ProgressView => {
  let current = "";
  let drawn = false;
  let last = 0;
  const clear = () => {
    if (drawn) screen.err("\r\x1b[K");
    drawn = false;
  };
  const draw = (text: string) => {
    clear();
    // A line that wraps cannot be drawn over.
    screen.err(text.slice(0, Math.max(20, screen.columns() - 1)));
    drawn = true;
  };
  const show = (event: RunEvent) => {
    switch (event.status) {
      case "initiate":
        current = head(event);
        last = 0;
        return draw(`▸ ${current}`);
      case "progress": {
        const now = performance.now();
        if (now - last < 80 && event.done < event.total) return;
        last = now;
        return draw(`▸ ${current} ${progressText(event)}`);
      }
      case "done":
        clear();
        return screen.err(`${doneText(event)}\n`);
      case "note":
        clear();
        return screen.err(`  note: ${event.name === undefined ? "" : `${event.name}: `}${event.message}\n`);
      case "ready":
        return clear();
    }
  };
  return { onEvent: (event) => Effect.sync(() => show(event)), end: clear };
};

/** Seconds between two lines about the same step in a log. */
const LOG_EVERY = 15;

/** Plain lines, for logs: beginning and end of each step, and where it is every quarter of a minute. */
export const plainView = (screen: Screen): ProgressView => {
  let current = "";
  let last = 0;
  const show = (event: RunEvent) => {
    switch (event.status) {
      case "initiate":
        current = head(event);
        last = 0;
        return screen.err(`▸ ${current}  ${event.reason}\n`);
      case "progress":
        if (event.seconds - last < LOG_EVERY) return;
        last = event.seconds;
        return screen.err(`  ${current} ${progressText(event)}\n`);
      case "done":
        return screen.err(`${doneText(event)}\n`);
      case "note":
        return screen.err(`  note: ${event.name === undefined ? "" : `${event.name}: `}${event.message}\n`);
      case "ready":
        return;
    }
  };
  return { onEvent: (event) => Effect.sync(() => show(event)), end: () => {} };
};
