/**
 * What happened in a run, numbered and kept, for any number of readers: each reads at its own pace from where it was,
 * so that a slow one holds up nobody and costs no memory. On the wire: NDJSON, or server-sent events with their ids.
 */
import { Deferred, Effect, Option, Stream } from "effect";
import type { RunEvent } from "../pipeline/events.ts";
import type { EndEvent } from "./api.ts";

export interface Logged {
  /** From 1 on; gaps are progress that was left out. */
  readonly id: number;
  readonly event: RunEvent | EndEvent;
}

/** Events that are kept of one run; beyond them the older half loses its progress. */
const MOST = 4096;
/** The newest events of a run that has ended keep their progress: a thousand ended runs are remembered. */
const LATER = 100;
/** Milliseconds between two reports of progress that are kept: more often than eyes can use. */
const RARELY = 100;
/** Seconds of silence after which a reader is shown that the connection lives. */
const SILENCE = "15 seconds";

export class EventLog {
  #events: Logged[] = [];
  #last = 0;
  #ended = false;
  #reported = -Infinity;
  #more = Deferred.makeUnsafe<void>();

  get last(): Logged | undefined {
    return this.#events.at(-1);
  }

  append(event: RunEvent | EndEvent): void {
    if (this.#ended) return;
    if (event.status === "progress") {
      const now = performance.now();
      if (now - this.#reported < RARELY && event.done < event.total) return;
      this.#reported = now;
    }
    this.#events.push({ id: ++this.#last, event });
    if (this.#events.length > MOST) {
      this.#events = this.#events.filter((e, i) => i > MOST / 2 || e.event.status !== "progress");
    }
    this.#ended = event.status === "result" || event.status === "error";
    if (this.#ended) {
      this.#events = this.#events.filter((e, i, all) => i > all.length - LATER || e.event.status !== "progress");
    }
    const woken = this.#more;
    this.#more = Deferred.makeUnsafe();
    Deferred.doneUnsafe(woken, Effect.void);
  }

  /** The events after one, to the end of the run; undefined marks a silence. */
  after(id: number): Stream.Stream<Logged | undefined> {
    return Stream.paginate(
      id,
      (cursor) =>
        Effect.suspend((): Effect.Effect<readonly [ReadonlyArray<Logged | undefined>, Option.Option<number>]> => {
          const found = this.#events.slice(this.#events.findLastIndex((e) => e.id <= cursor) + 1);
          if (found.length > 0) return Effect.succeed([found, Option.some(found[found.length - 1].id)]);
          if (this.#ended) return Effect.succeed([[], Option.none()]);
          return Deferred.await(this.#more).pipe(
            Effect.timeoutOption(SILENCE),
            Effect.map((more) => [Option.isSome(more) ? [] : [undefined], Option.some(cursor)]),
          );
        }),
    );
  }
}

export const FORMATS = {
  "application/x-ndjson": (logged: Logged | undefined) =>
    logged === undefined ? "" : `${JSON.stringify(logged.event)}\n`,
  "text/event-stream": (logged: Logged | undefined) =>
    logged === undefined ? ":\n\n" : `id: ${logged.id}\ndata: ${JSON.stringify(logged.event)}\n\n`,
} as const;
export type Format = keyof typeof FORMATS;

/** The form that an Accept header asks for (RFC 9110: the most specific range counts, then its quality); NDJSON if any will do. */
export const formatFor = (accept: string | undefined): Format | undefined => {
  if (accept === undefined || accept.trim() === "") return "application/x-ndjson";
  const ranges = accept.toLowerCase().split(",").map((part) => {
    const [range, ...params] = part.split(";").map((text) => text.trim());
    const q = params.find((param) => param.startsWith("q="));
    return { range, q: q === undefined ? 1 : Number(q.slice(2)) || 0 };
  });
  const quality = (format: Format): number => {
    const wanted = [format, `${format.split("/")[0]}/*`, "*/*"];
    const best = wanted.map((range) => ranges.find((r) => r.range === range)).find((r) => r !== undefined);
    return best?.q ?? 0;
  };
  const formats = (Object.keys(FORMATS) as Format[]).filter((format) => quality(format) > 0);
  return formats.sort((a, b) => quality(b) - quality(a))[0];
};
