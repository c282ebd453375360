/**
 * Runs a pipeline: each step once, its result kept as soon as it exists. What is in the cache is not done again, so a run
 * that was stopped (Ctrl-C, crash, power) goes on where it was. Steps that do not need each other run side by side where
 * the device computes several things at once: one prepares while another computes.
 */
import { Clock, Deferred, Effect, Schema } from "effect";
import { StepError, Verdict } from "../steps/errors.ts";
import { measurePeak } from "../runtime/peak_memory.ts";
import { NO_PIECES, Pieces } from "../steps/pieces.ts";
import { Progress, type ProgressListener } from "../steps/progress.ts";
import type { Cache } from "./cache.ts";
import type { Environment } from "./environment.ts";
import type { OnEvent } from "./events.ts";
import type { LinkedStep, Pipeline } from "./link.ts";
import { makeManifest, type Manifest } from "./manifest.ts";
import { openPieces } from "./pieces.ts";
import { identity, plan, type PlanStep } from "./plan.ts";
import { timeLeft } from "./time_left.ts";
import type { Wire } from "./wiring.ts";

export interface RunOptions<R> {
  /** Without one every step runs and nothing is kept. */
  readonly cache?: Cache;
  readonly environment: Environment<R>;
  readonly onEvent?: OnEvent;
  /** Ids of steps that run whatever the cache holds; their new results take the place of the old. */
  readonly again?: ReadonlySet<string>;
  /** Flags of the command line without which it is another run (`--allow-code`, `--only ID`). */
  readonly flags?: ReadonlyArray<string>;
}

export interface StepResult {
  readonly id: string;
  readonly use: string;
  readonly description: string;
  readonly key: string;
  readonly seconds: number;
  /** Most bytes that the process held while the step ran, where that is known. */
  readonly peak?: number;
  readonly cached: boolean;
  readonly settings: unknown;
  /** Values of the output ports. */
  readonly outputs: Readonly<Record<string, unknown>>;
}

export interface RunResult<R = never> {
  readonly pipeline: Pipeline<R>;
  readonly steps: ReadonlyArray<StepResult>;
  /** What the pipeline hands back, by name. */
  readonly outputs: Readonly<Record<string, { readonly wire: Wire; readonly value: unknown }>>;
  /** The last verdict among the outputs. */
  readonly verdict?: Verdict;
  readonly manifest: Manifest;
}

const listener = (id: string, started: number, onEvent: OnEvent): ProgressListener => {
  const leftAt = timeLeft(started);
  return {
    report: ({ done, total, note }) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) => {
        const share = total > 0 ? Math.min(1, Math.max(0, done / total)) : 0;
        const left = leftAt(now, share);
        return onEvent({
          status: "progress",
          name: id,
          done,
          total,
          progress: 100 * share,
          seconds: (now - started) / 1000,
          ...(left === undefined ? {} : { left }),
          ...(note === undefined ? {} : { note }),
        });
      }),
  };
};

/** Most steps that run at once, however many lanes there are: each holds weights and results of its own. */
const SIDE_BY_SIDE = 4;

const isVerdict = Schema.is(Verdict);

export const run = Effect.fn("pipeline.run")(function* <R>(
  pipeline: Pipeline<R>,
  options: RunOptions<R>,
): Effect.fn.Return<RunResult<R>, unknown> {
  const { cache, environment, onEvent = () => Effect.void, again = new Set() } = options;
  const begun = yield* Clock.currentTimeMillis;
  const kind = yield* environment.kind;
  const planned = yield* plan(pipeline, { cache, device: kind, again });
  const values = new Map<string, Readonly<Record<string, unknown>>>();
  const results: StepResult[] = [];
  const finished = new Map(pipeline.steps.map(({ id }) => [id, Deferred.makeUnsafe<void>()]));
  const count = pipeline.steps.length;

  /** Runs one step's program and keeps what it gives. */
  const compute = Effect.fnUntraced(function* ({ id, step, settings, inputs }: LinkedStep<R>, { key }: PlanStep) {
    const started = yield* Clock.currentTimeMillis;
    const peakOf = measurePeak();
    const given = Object.fromEntries(
      Object.entries(inputs).map(([name, { step, output }]) => [name, values.get(step)?.[output]]),
    );
    // A step that is to run again whatever the cache holds trusts no piece of it either.
    const pieces = cache === undefined || again.has(id) ? undefined : openPieces(cache, key, step.name);
    let peak: number | undefined;
    const outputs = yield* environment.provide(step.program(given, settings)).pipe(
      Effect.ensuring(Effect.sync(() => peak = peakOf())),
      Effect.provideService(Progress, listener(id, started, onEvent)),
      Effect.provideService(Pieces, pieces?.keeper ?? NO_PIECES),
      // A bug in a step is its failure, with its cause; only Ctrl-C stays what it is.
      Effect.catchDefect((defect) => Effect.fail(defect)),
      Effect.mapError((cause) => cause instanceof StepError ? cause : new StepError({ step: id, cause })),
      Effect.annotateSpans({ "sau.step": id, "sau.use": step.name }),
    );
    const missing = Object.keys(step.outputs).filter((name) => !Object.hasOwn(outputs, name));
    if (missing.length > 0) {
      const cause = new Error(`its program gave no ${missing.join(", ")}, which its definition promises`);
      return yield* new StepError({ step: id, cause });
    }
    const about = {
      seconds: ((yield* Clock.currentTimeMillis) - started) / 1000,
      ...(peak === undefined ? {} : { peak }),
    };
    if (cache !== undefined) {
      if (again.has(id)) yield* cache.drop(key);
      const reason = yield* cache.put(key, { use: step.name, ...about }, step.outputs, outputs);
      if (reason !== undefined) {
        yield* onEvent({ status: "note", name: id, message: `its result could not be kept for later runs: ${reason}` });
      } else if (pieces !== undefined) yield* pieces.forget;
    }
    return { outputs, ...about };
  });

  /** Brings about one step's result, when those of its inputs are there. */
  const bring = Effect.fnUntraced(function* (linked: LinkedStep<R>, i: number) {
    const { id, step, inputs } = linked;
    for (const wire of Object.values(inputs)) yield* Deferred.await(finished.get(wire.step)!);
    const stepPlan = planned.steps[i];
    const place = { name: id, use: step.name, index: i + 1, count };
    const found = cache === undefined || !stepPlan.cached
      ? { _tag: "miss" } as const
      : yield* cache.get(stepPlan.key, step.outputs);
    // A run beside this one may have taken it away since the plan.
    let reason = stepPlan.cached ? "its result is no longer in the cache" : stepPlan.reason;
    if (found._tag === "damaged") {
      reason = `its cached result is damaged (${found.reason})`;
      yield* onEvent({ status: "note", name: id, message: `${reason}; the step runs again` });
    }
    const cached = found._tag === "hit";
    if (!cached) yield* onEvent({ status: "initiate", ...place, reason });
    // Outside the step: that no device works is not its failure.
    if (!cached) yield* environment.open;
    const { outputs, seconds, peak } = cached ? found : yield* compute(linked, stepPlan);
    if (cache !== undefined) yield* cache.remember(identity(pipeline), id, stepPlan.recipe);
    values.set(id, outputs);
    results[i] = {
      id,
      use: step.name,
      description: step.description,
      key: stepPlan.key,
      seconds,
      ...(peak === undefined ? {} : { peak }),
      cached,
      settings: linked.encoded,
      outputs,
    };
    yield* onEvent({ status: "done", ...place, seconds, cached });
    yield* Deferred.succeed(finished.get(id)!, undefined);
  });

  const several = planned.steps.filter(({ cached }) => !cached).length > 1;
  const lanes = several && environment.lanes !== undefined ? yield* environment.lanes : 1;
  // In order, so that what a step waits for has begun before it.
  yield* Effect.forEach(pipeline.steps, bring, { concurrency: Math.min(lanes, SIDE_BY_SIDE), discard: true });

  const seconds = ((yield* Clock.currentTimeMillis) - begun) / 1000;
  const outputs = Object.fromEntries(
    Object.entries(pipeline.outputs).map((
      [name, wire],
    ) => [name, { wire, value: values.get(wire.step)?.[wire.output] }]),
  );
  const judged = Object.values(outputs).filter(({ wire }) => wire.port.kind === "verdict").at(-1);
  const verdict = judged?.value;
  if (judged !== undefined && !isVerdict(verdict)) {
    // Passing over it would let a verdict that fails look like none.
    const cause = new Error("its verdict lacks `passed`, `sentence` or sound `figures`");
    return yield* new StepError({ step: judged.wire.step, cause });
  }
  const manifest = makeManifest(pipeline, {
    steps: results.map(({ id, use, key, settings, seconds, cached }, i) => {
      const { version, inputs, files } = planned.steps[i].recipe;
      return { id, use, version, key, settings, inputs, files, seconds, cached };
    }),
    device: { kind, report: yield* environment.report },
    started: new Date(begun),
    seconds,
    ...(options.flags === undefined ? {} : { flags: options.flags }),
  });
  yield* onEvent({ status: "ready", seconds });
  return { pipeline, steps: results, outputs, manifest, ...(isVerdict(verdict) ? { verdict } : {}) };
});
