/**
 * What happens during a run, for whoever shows it. `--json` prints these one a line; the names of the fields follow
 * transformers.js' progress events (status: initiate, progress, done, ready).
 */
import type { Effect } from "effect";

export type RunEvent =
  /** A step begins; `reason` says why it is not cached. */
  | {
    readonly status: "initiate";
    readonly name: string;
    readonly use: string;
    readonly index: number;
    readonly count: number;
    readonly reason: string;
  }
  /** `progress` in percent; `seconds` since the step began; `left` is an estimate in seconds, of the part that `note` tells. */
  | {
    readonly status: "progress";
    readonly name: string;
    readonly done: number;
    readonly total: number;
    readonly progress: number;
    readonly seconds: number;
    readonly left?: number;
    readonly note?: string;
  }
  /** A step has its result, computed in `seconds` now or, if cached, in an earlier run. */
  | {
    readonly status: "done";
    readonly name: string;
    readonly use: string;
    readonly index: number;
    readonly count: number;
    readonly seconds: number;
    readonly cached: boolean;
  }
  /** Something that the user should know and that stops nothing. */
  | { readonly status: "note"; readonly name?: string; readonly message: string }
  /** All steps have their results. */
  | { readonly status: "ready"; readonly seconds: number };

export type OnEvent = (event: RunEvent) => Effect.Effect<void>;
