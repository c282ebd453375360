/**
 * Progress of the running step. A step says how far it is and knows nothing of terminals; whoever runs it (the CLI,
 * a server, a test) decides what becomes of that. Without a listener reports go nowhere, so steps need no set-up.
 */
import { Context, Effect } from "effect";

/** How far a step is: `done` of `total` units, in whatever unit the step counts. */
export interface ProgressReport {
  readonly done: number;
  readonly total: number;
  /** A few words on what is being done now. */
  readonly note?: string;
}

/** Something that takes reports. */
export interface ProgressListener {
  readonly report: (report: ProgressReport) => Effect.Effect<void>;
}

/** The listener of the running step (`yield* report(…)` is the usual way to reach it). Default: nobody listens. */
export const Progress: Context.Reference<ProgressListener> = Context.Reference<ProgressListener>("sau/steps/Progress", {
  defaultValue: () => ({ report: () => Effect.void }),
});

/** Reports progress from inside a step: `yield* report({ done: i, total: n, note: "denoising" })`. */
export const report = (progress: ProgressReport): Effect.Effect<void> =>
  Effect.flatMap(Progress, (listener) => listener.report(progress));
