/**
 * Runs as the server keeps them: each waits for the device, computes, and leaves events, artefacts and a record on disk. A run lives
 * as long as somebody reads it, unless its client said that nobody will.
 */
import { Cause, Effect, Exit, Fiber, Predicate, Stream } from "effect";
import { mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Cache } from "../pipeline/cache.ts";
import type { Environment } from "../pipeline/environment.ts";
import { writeOutputs } from "../pipeline/outputs.ts";
import { run, type RunResult } from "../pipeline/run.ts";
import { explain, SpecError } from "../steps/errors.ts";
import type { EndEvent, RunState } from "./api.ts";
import type { Artefacts } from "./artefacts.ts";
import type { Asked } from "./ask.ts";
import { withinBudget } from "./budget.ts";
import { EventLog, type Logged } from "./events.ts";
import type { Hub } from "./hub.ts";
import type { Limits } from "./limits.ts";
import { mistakesOf, publicWords, Refusal, strippedOfPaths } from "./problems.ts";
import type { Queue } from "./queue.ts";

/** What is written down of a run. */
interface Record {
  readonly id: string;
  readonly client: string;
  readonly key: string | null;
  readonly hash: string;
  readonly pipeline: string;
  readonly created: string;
  ended: string | null;
  state: RunState["state"];
  end: EndEvent | null;
}

export interface Run {
  readonly record: Record;
  readonly log: EventLog;
}

interface Live extends Run {
  /** Whoever reads its events now. */
  readers: number;
  /** It goes on without readers. */
  readonly detached: boolean;
  fiber?: Fiber.Fiber<unknown, unknown>;
  timer?: ReturnType<typeof setTimeout>;
}

export interface RunsOptions<R> {
  readonly data: string;
  readonly limits: Limits;
  readonly queue: Queue;
  readonly environment: Environment<R>;
  readonly cache: Cache;
  readonly artefacts: Artefacts;
  readonly hub: Hub;
  /** Bytes on the device now. */
  readonly held: () => number;
  readonly renderReport?: (run: RunResult<R>) => string;
  /** Told when a run ends: its state, and the seconds since it was asked for. */
  readonly onEnd?: (state: RunState["state"], seconds: number) => void;
}

/** Milliseconds that a client has to begin reading before its run counts as left. */
const PICK_UP = 5000;

const tagOf = (error: unknown): string =>
  Predicate.isObject(error) && "_tag" in error && Predicate.isString(error._tag) ? error._tag : "Error";

const failure = (error: unknown): EndEvent => ({
  status: "error",
  tag: tagOf(error),
  message: publicWords(error),
  ...(error instanceof SpecError ? { problems: mistakesOf(error) } : {}),
});

export const makeRuns = <R>(options: RunsOptions<R>) =>
  Effect.gen(function* () {
    const { data, limits, queue, environment, cache, artefacts, hub } = options;
    const scope = yield* Effect.scope;
    const folder = join(data, "runs");
    const runs = new Map<string, Live>();
    const byKey = new Map<string, Live>();
    let draining = false;

    const keyName = (client: string, key: string) => `${client} ${key}`;
    const file = (id: string) => join(folder, `${id}.json`);

    const remember = (run: Live) => {
      runs.set(run.record.id, run);
      const { client, key } = run.record;
      if (key !== null) byKey.set(keyName(client, key), run);
    };

    /** Oldest first, those that ended go when there are too many. */
    const forget = async () => {
      for (const [id, run] of runs) {
        if (runs.size <= limits.remembered) return;
        if (run.record.ended === null) continue;
        runs.delete(id);
        const { client, key } = run.record;
        if (key !== null && byKey.get(keyName(client, key)) === run) byKey.delete(keyName(client, key));
        await rm(file(id), { force: true });
      }
    };

    const save = (run: Live): Promise<void> =>
      (async () => {
        const aside = join(folder, `.${run.record.id}-${crypto.randomUUID().slice(0, 8)}`);
        await writeFile(aside, JSON.stringify(run.record));
        await rename(aside, file(run.record.id));
      })();

    /** The run goes on without its record; only the next process will not know it. */
    const unkept = ({ record: { id } }: Live, error: unknown) =>
      Effect.logWarning(`the record of run ${id} could not be written: ${explain(error)}`);

    /** Takes up the records of the process before this one; what it left unfinished ended with it. */
    const load = async () => {
      await rm(join(data, "work"), { recursive: true, force: true });
      await mkdir(folder, { recursive: true });
      const records: Record[] = [];
      for (const name of await readdir(folder)) {
        if (!name.endsWith(".json")) await rm(join(folder, name), { force: true });
        else {
          const record = await readFile(join(folder, name), "utf8").then(JSON.parse).catch(() => undefined);
          if (record !== undefined) records.push(record);
        }
      }
      for (const record of records.sort((a, b) => a.created < b.created ? -1 : 1)) {
        const log = new EventLog();
        const run: Live = { record, log, readers: 0, detached: true };
        if (record.end === null) {
          const message =
            "the server stopped in the middle of this run; sent again, it goes on after its finished steps";
          settle(run, "failed", { status: "error", tag: "Stopped", message });
          await save(run);
        } else log.append(record.end);
        remember(run);
      }
      await forget();
    };

    const settle = (run: Live, state: RunState["state"], end: EndEvent) => {
      run.record.state = state;
      run.record.ended = new Date().toISOString();
      run.record.end = end;
      run.log.append(end);
    };

    const note = (run: Live, message: string) => Effect.sync(() => run.log.append({ status: "note", message }));

    /** The run itself: what it needs is fetched, then it computes when its turn comes. */
    const perform = Effect.fnUntraced(function* (
      live: Live,
      { pipeline, models }: Asked<R>,
      inTurn: <A, E, R>(body: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>,
    ) {
      const { record: { id }, log } = live;
      for (const model of models) {
        yield* note(live, `fetching ${model.id}@${model.commit.slice(0, 12)}, unless it is here`);
        yield* hub.fetch(model);
      }
      const { waiting, running } = queue.state();
      if (running > 0) yield* note(live, `waiting for the device; ${running} running, ${waiting} waiting`);
      const compute = Effect.gen(function* () {
        live.record.state = "running";
        const result = yield* run(pipeline, {
          environment,
          cache,
          // A step's words may name files; what leaves the server names no folder.
          onEvent: (event) => Effect.sync(() => log.append(strippedOfPaths(event) as typeof event)),
        });
        // What the pipeline is told by name, and its settings, go into report and manifest: without folders.
        const shown: RunResult<R> = {
          ...result,
          pipeline: strippedPipeline(result),
          steps: result.steps.map((step) => ({ ...step, settings: strippedOfPaths(step.settings) })),
          manifest: strippedOfPaths(result.manifest) as RunResult<R>["manifest"],
        };
        const { renderReport } = options;
        const dir = join(data, "work", id);
        const written = yield* writeOutputs(shown, dir, renderReport === undefined ? {} : { renderReport });
        const taken = yield* artefacts.take(dir, written.files);
        const { verdict } = result;
        return {
          status: "result",
          passed: verdict?.passed ?? null,
          verdict: verdict === undefined
            ? null
            : { passed: verdict.passed, sentence: verdict.sentence, figures: verdict.figures },
          out: null,
          files: taken.map(({ name }) => name),
          artefacts: taken,
          seconds: result.manifest.seconds,
          command: shown.manifest.command,
        } satisfies EndEvent;
      });
      return yield* inTurn(withinBudget(limits, options.held)(compute));
    });

    const begin = (live: Live, asked: Asked<R>) =>
      Effect.gen(function* () {
        const place = yield* queue.admit(live.record.client);
        // From here on the run exists: whoever asks again with its key finds it.
        remember(live);
        const began = performance.now();
        const fiber = yield* Effect.forkIn(perform(live, asked, place.inTurn), scope, { startImmediately: true });
        live.fiber = fiber;
        fiber.addObserver((exit) => {
          place.leave();
          clearTimeout(live.timer);
          if (Exit.isSuccess(exit)) settle(live, "done", exit.value);
          else if (Cause.hasInterruptsOnly(exit.cause)) {
            const message = draining
              ? "the server stopped; finished steps are kept"
              : "the run was cancelled; finished steps are kept";
            settle(live, "cancelled", { status: "error", tag: draining ? "Stopped" : "Cancelled", message });
          } else settle(live, "failed", failure(Cause.squash(exit.cause)));
          options.onEnd?.(live.record.state, (performance.now() - began) / 1000);
          save(live).then(forget).catch((error) => Effect.runFork(unkept(live, error)));
        });
        yield* Effect.catch(Effect.tryPromise({ try: () => save(live), catch: (e) => e }), (e) => unkept(live, e));
        if (!live.detached) leaveUnlessRead(live, PICK_UP);
      });

    const stop = (live: Live) => {
      const { fiber } = live;
      if (fiber !== undefined && live.record.ended === null) fiber.interruptUnsafe();
    };

    const leaveUnlessRead = (live: Live, milliseconds: number) => {
      clearTimeout(live.timer);
      if (live.detached || live.record.ended !== null || live.readers > 0) return;
      if (milliseconds <= 0) return stop(live);
      live.timer = setTimeout(() => live.readers === 0 && stop(live), milliseconds);
      // A pending look at a run keeps no process alive.
      if (typeof live.timer === "object") live.timer.unref?.();
    };

    yield* Effect.promise(load);

    return {
      counts: () => ({ ...queue.state(), remembered: runs.size }),
      isDraining: () => draining,

      /** Begins a run, or gives the one that the same client began with the same key. */
      start: (
        client: string,
        asked: Asked<R>,
        { key = null, detached = false }: { readonly key?: string | null; readonly detached?: boolean } = {},
      ): Effect.Effect<{ readonly run: Run; readonly fresh: boolean }, Refusal> =>
        Effect.gen(function* () {
          const known = key === null ? undefined : byKey.get(keyName(client, key));
          if (known !== undefined && known.record.hash !== asked.hash) {
            return yield* new Refusal({ kind: "key-reused", detail: "use a new Idempotency-Key for a new request" });
          }
          // A run that ended well or is under way is the answer; one that failed is tried again.
          if (known !== undefined && ["queued", "running", "done"].includes(known.record.state)) {
            return { run: known, fresh: false };
          }
          if (draining) {
            return yield* new Refusal({ kind: "draining", headers: { "retry-after": String(limits.drain) } });
          }
          const live: Live = {
            record: {
              id: crypto.randomUUID(),
              client,
              key,
              hash: asked.hash,
              pipeline: asked.name,
              created: new Date().toISOString(),
              ended: null,
              state: "queued",
              end: null,
            },
            log: new EventLog(),
            readers: 0,
            detached,
          };
          yield* begin(live, asked);
          return { run: live, fresh: true };
        }),

      /** A run of this client's. */
      get: (client: string, id: string): Effect.Effect<Run, Refusal> => {
        const found = runs.get(id);
        return found === undefined || found.record.client !== client
          ? Effect.fail(new Refusal({ kind: "not-found", detail: "there is no run of yours with that id" }))
          : Effect.succeed(found);
      },

      /** Stops a run; comes back when it has freed what it held. */
      cancel: (run: Run): Effect.Effect<void> =>
        Effect.suspend(() => {
          const live = runs.get(run.record.id);
          return live?.fiber === undefined || live.record.ended !== null
            ? Effect.void
            : Effect.asVoid(Fiber.interrupt(live.fiber));
        }),

      /** Its events after one. The run stops when its last reader has gone, `patience` seconds later. */
      read: (run: Run, after: number, patience: number): Stream.Stream<Logged | undefined> =>
        Stream.unwrap(Effect.sync(() => {
          const live = runs.get(run.record.id);
          if (live === undefined) return run.log.after(after);
          live.readers++;
          clearTimeout(live.timer);
          return run.log.after(after).pipe(Stream.ensuring(Effect.sync(() => {
            live.readers--;
            leaveUnlessRead(live, patience * 1000);
          })));
        })),

      /** No new runs; those under way get the time to end, and what is left then is stopped. */
      drain: Effect.gen(function* () {
        draining = true;
        const open = () => [...runs.values()].filter(({ record }) => record.ended === null);
        yield* Effect.gen(function* () {
          while (open().length > 0) yield* Effect.sleep(50);
        }).pipe(Effect.timeoutOption(`${limits.drain} seconds`));
        yield* Effect.forEach(open(), ({ fiber }) => fiber === undefined ? Effect.void : Fiber.interrupt(fiber), {
          concurrency: "unbounded",
          discard: true,
        });
      }),
    };
  });
export type Runs<R> = Effect.Success<ReturnType<typeof makeRuns<R>>>;

const strippedPipeline = <R>({ pipeline }: RunResult<R>): RunResult<R>["pipeline"] => ({
  ...pipeline,
  file: strippedOfPaths(pipeline.file) as string,
  params: strippedOfPaths(pipeline.params) as typeof pipeline.params,
  overrides: strippedOfPaths(pipeline.overrides) as string[],
  text: strippedOfPaths(pipeline.text) as string,
});

export const stateOf = ({ record, log }: Run): RunState => ({
  id: record.id,
  state: record.state,
  pipeline: record.pipeline,
  created: record.created,
  ended: record.ended,
  lastEventId: log.last?.id ?? 0,
  lastEvent: log.last?.event ?? null,
});
