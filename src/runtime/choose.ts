/** Which device computes: candidates in order, each refused or trusted for a reason that the report keeps. */
import { Duration, Effect, Exit, Result, Scope } from "effect";
import { type Backend, type Found, Missing } from "./backend.ts";
import type { Engine } from "./engine.ts";
import { hostFacts } from "./host.ts";
import { native } from "./native.ts";
import { firstLine } from "./optional.ts";
import { reference } from "./reference.ts";
import { choosePrecision } from "./precision.ts";
import type { AdapterReport, Candidate, Device, Precision } from "./report.ts";
import { selfCheck, TOLERANCE } from "./selfcheck.ts";
import { inTurn } from "./turn.ts";
import { wasm } from "./wasm.ts";
import { webgpu } from "./webgpu.ts";

export interface ChooseOptions {
  /** CPU threads for native code; the default is one per core. */
  readonly threads?: number;
  /** The candidates in order of preference; the default is a GPU, native, wasm, and the reference where it is asked for. */
  readonly backends?: readonly Backend[];
  /** How long looking for a device, and then checking it, may take each. */
  readonly patience?: Duration.Input;
  /** In which precision networks that only draw compute; `auto` unless told. */
  readonly precision?: Precision;
  /** Look at every candidate, also those after the chosen one and those not asked for. */
  readonly everything?: boolean;
}

export interface Choice {
  readonly engine: Engine | undefined;
  readonly report: AdapterReport;
}

/** Tries the candidates. The chosen engine lives as long as the scope; the others are closed before this returns. */
export const choose = Effect.fn("Runtime.choose")(function* (device: Device, options: ChooseOptions = {}) {
  const backends = options.backends ??
    [webgpu, native(options.threads), wasm, ...(device === "reference" ? [reference] : [])];
  const wanted = (b: Backend) =>
    device === "auto" || b.name === device || (b.name === "webgpu" && device === "webgpu-software");
  let engine: Engine | undefined;
  const candidates: Candidate[] = [];
  for (const backend of backends) {
    const first = engine === undefined;
    if ((!wanted(backend) || !first) && !options.everything) {
      const why = wanted(backend) ? "another was chosen before it" : `not asked for (device ${device})`;
      candidates.push({ ...blank(backend), status: "untried", why });
      continue;
    }
    const scope = yield* Scope.fork(yield* Effect.scope);
    const tried = yield* tryOne(backend, device, options.patience ?? "60 seconds").pipe(Scope.provide(scope));
    const takes = tried.engine !== undefined && wanted(backend) && first;
    if (takes) engine = tried.engine;
    else yield* Scope.close(scope, Exit.void);
    candidates.push(
      takes ? { ...tried.candidate, status: "chosen", why: reason(backend, device) } : tried.engine !== undefined
        ? {
          ...tried.candidate,
          why: wanted(backend) ? "another was chosen before it" : `not asked for (device ${device})`,
        }
        : tried.candidate,
    );
  }
  const precision = yield* precisionOf(engine, options);
  const chosen = engine?.backend ?? null;
  const report: AdapterReport = { requested: device, chosen, precision, candidates, host: hostFacts() };
  return { engine, report };
});

const precisionOf = (engine: Engine | undefined, { precision = "auto", patience = "60 seconds" }: ChooseOptions) => {
  if (engine === undefined) {
    return Effect.succeed({ requested: precision, chosen: null, why: "no device", error: null });
  }
  const late = new Missing({ reason: "the check of its half precision did not finish", advice: [] });
  return Effect.tryPromise(() => deadline(choosePrecision(engine, precision), patience, late)).pipe(
    Effect.catch(() =>
      Effect.succeed({
        requested: precision,
        chosen: precision === "float16" ? null : "float32" as const,
        why: late.reason,
        error: null,
      })
    ),
    Effect.uninterruptible,
    inTurn(engine.backend),
  );
};

const reason = (backend: Backend, device: Device): string =>
  device !== "auto" ? `asked for (device ${device})` : {
    webgpu: "a hardware GPU",
    native: "no trusted GPU; native code is installed",
    wasm: "no trusted GPU, no native code",
    reference: "nothing else was offered",
  }[backend.name];

const blank = (backend: Backend): Candidate => ({
  backend: backend.name,
  status: "absent",
  vendor: "",
  architecture: "",
  description: "",
  software: false,
  check: { result: "not run", milliseconds: null, error: null },
  why: "",
  advice: [],
  threads: null,
  limits: null,
  version: "",
});

interface Tried {
  readonly candidate: Candidate;
  readonly engine?: Engine;
}

const tryOne = (backend: Backend, device: Device, patience: Duration.Input): Effect.Effect<Tried, never, Scope.Scope> =>
  Effect.gen(function* () {
    const hung = (what: string) =>
      new Missing({
        reason: `${what} did not finish in ${Duration.toSeconds(Duration.fromInputUnsafe(patience))} s`,
        advice: ["Update the graphics driver, or choose --device wasm."],
      });
    const within = <A, R>(what: string, body: Effect.Effect<A, Missing, R>) =>
      body.pipe(Effect.timeoutOrElse({ duration: patience, orElse: () => Effect.fail(hung(what)) }));

    const looked = yield* Effect.result(
      within("looking for it", backend.find({ software: device === "webgpu-software" })),
    );
    if (Result.isFailure(looked)) {
      const { reason, advice } = looked.failure;
      return { candidate: { ...blank(backend), why: reason, advice } };
    }
    const { open, refuse, ...facts } = looked.success;
    const base: Candidate = { ...blank(backend), ...facts, status: "refused" };
    const no = refuse === undefined ? refusal(facts, backend, device) : { why: refuse, advice: [] };
    if (no !== undefined) return { candidate: { ...base, ...no } };

    const started = performance.now();
    const check = (engine: Engine) =>
      Effect.tryPromise({
        try: () => deadline(selfCheck(engine), patience, hung("its self-check")),
        catch: (error) =>
          error instanceof Missing
            ? error
            : new Missing({ reason: `its self-check failed: ${firstLine(error)}`, advice: [] }),
      }).pipe(
        // An interruption waits for the call into ONNX Runtime to end: the next one would find it busy.
        Effect.uninterruptible,
        inTurn(backend.name),
        Effect.map((error) => ({ engine, error })),
      );
    const checked = yield* Effect.result(within("opening it", open).pipe(Effect.flatMap(check)));
    const milliseconds = performance.now() - started;
    if (Result.isFailure(checked)) {
      const { reason, advice } = checked.failure;
      return { candidate: { ...base, why: reason, advice, check: { result: "failed", milliseconds, error: null } } };
    }
    const { engine, error } = checked.success;
    if (error > TOLERANCE) {
      return {
        candidate: {
          ...base,
          why: `it computes wrongly: its self-check is off by ${
            Number.isFinite(error) ? error.toPrecision(2) : "everything"
          } (allowed ${TOLERANCE})`,
          advice: ["Update the driver; nothing that this device computes can be trusted."],
          check: { result: "failed", milliseconds, error: Number.isFinite(error) ? error : null },
        },
      };
    }
    return { engine, candidate: { ...base, status: "usable", check: { result: "passed", milliseconds, error } } };
  });

/** The promise, or a rejection when it takes too long; what it waits for goes on by itself. */
const deadline = async <A>(promise: Promise<A>, patience: Duration.Input, late: Error): Promise<A> => {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const tooLate = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(late), Duration.toMillis(Duration.fromInputUnsafe(patience)));
  });
  try {
    return await Promise.race([promise, tooLate]);
  } finally {
    clearTimeout(timer);
  }
};

type Refusal = Pick<Candidate, "why" | "advice">;

const refusal = (found: Pick<Found, "software">, backend: Backend, device: Device): Refusal | undefined => {
  if (found.software && device !== "webgpu-software") {
    return {
      why: "emulated on the CPU, slower than wasm",
      advice: ["Install the graphics driver of a real GPU, or ask for the emulation by name: --device webgpu-software"],
    };
  }
  if (!found.software && backend.name === "webgpu" && device === "webgpu-software") {
    return { why: "a hardware GPU, and an emulated one was asked for", advice: ["--device webgpu takes it"] };
  }
  return undefined;
};
