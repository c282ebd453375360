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

type Progressed = Extract<RunEvent, { status: "progress" }>;

const progressText = (e: Progressed): string => {
  const left = e.left === undefined ? "" : `, ${duration(e.left)} left`;
  return `${e.progress.toFixed(0).padStart(3)} %  ${duration(e.seconds)}${left}${
    e.note === undefined ? "" : `  ${e.note}`
  }`;
};

const doneText = (e: Extract<RunEvent, { status: "done" }>): string =>
  `✓ ${head(e)}  ${e.cached ? `cached (took ${duration(e.seconds)})` : duration(e.seconds)}`;

/** One line for what runs, drawn over itself; a line for each step that is done. */
export const liveView = (screen: Screen): ProgressView => {
  /** What runs, and how far it is. */
  const running = new Map<string, { readonly head: string; readonly at?: Progressed }>();
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
  const redraw = () => {
    if (running.size === 0) return;
    // Several share the line: how far each is, and no more.
    const told = ({ head, at }: { readonly head: string; readonly at?: Progressed }) =>
      at === undefined
        ? `▸ ${head}`
        : `▸ ${head} ${running.size === 1 ? progressText(at) : `${at.progress.toFixed(0).padStart(3)} %`}`;
    draw([...running.values()].map(told).join("   "));
  };
  const show = (event: RunEvent) => {
    switch (event.status) {
      case "initiate":
        running.set(event.name, { head: head(event) });
        last = 0;
        return redraw();
      case "progress": {
        const known = running.get(event.name);
        if (known !== undefined) running.set(event.name, { ...known, at: event });
        const now = performance.now();
        if (now - last < 80 && event.done < event.total) return;
        last = now;
        return redraw();
      }
      case "done":
        running.delete(event.name);
        clear();
        screen.err(`${doneText(event)}\n`);
        return redraw();
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
  /** What runs, and the second of its last line. */
  const running = new Map<string, { readonly head: string; readonly last: number }>();
  const show = (event: RunEvent) => {
    switch (event.status) {
      case "initiate":
        running.set(event.name, { head: head(event), last: 0 });
        return screen.err(`▸ ${head(event)}  ${event.reason}\n`);
      case "progress": {
        const known = running.get(event.name);
        if (known === undefined || event.seconds - known.last < LOG_EVERY) return;
        running.set(event.name, { ...known, last: event.seconds });
        return screen.err(`  ${known.head} ${progressText(event)}\n`);
      }
      case "done":
        running.delete(event.name);
        return screen.err(`${doneText(event)}\n`);
      case "note":
        return screen.err(`  note: ${event.name === undefined ? "" : `${event.name}: `}${event.message}\n`);
      case "ready":
        return;
    }
  };
  return { onEvent: (event) => Effect.sync(() => show(event)), end: () => {} };
};
