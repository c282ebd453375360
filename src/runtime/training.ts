/** Training: a step's graph run again and again, its weights and optimiser state staying on the device in between. */
import { Effect, type Scope } from "effect";
import type { StateTensor } from "../graph/training.ts";
import { sameDims, type Tensor, zeros } from "../tensor/tensor.ts";
import type { HostTensor, ModelBytes } from "./engine.ts";
import { NotFinite, RuntimeError } from "./report.ts";
import { Runtime } from "./runtime.ts";
import { type DeviceTensor, isDevice, toHost } from "./session.ts";
import { faultOf } from "./training_fault.ts";

/** What a step says about itself. */
export interface StepResult {
  readonly step: number;
  readonly loss: number;
  /** Global norm of the gradients, before clipping. */
  readonly gradientNorm: number;
}

export interface Trainer {
  /**
   * One step with a learning rate and the data that the graph wants; only the numbers come back to the host. A step
   * whose loss or gradient is not finite is a NotFinite that names the first tensor to blame and changes nothing: the
   * state is that of the step before.
   */
  readonly step: (
    rate: number,
    data: Readonly<Record<string, HostTensor | DeviceTensor>>,
  ) => Effect.Effect<StepResult, RuntimeError | NotFinite>;
  /** The weights as they are now, or their running means, by the name of the input that feeds the weight. */
  readonly read: (role: "weight" | "average") => Effect.Effect<ReadonlyMap<string, Tensor>, RuntimeError>;
}

/**
 * Loads the graph of a training step (`trainingStep`) and puts its state on the device; both are freed with the scope.
 *
 * @param state what `trainingStep` returned.
 * @param weights the weights to begin with, by the name of their input.
 */
export const openTrainer = Effect.fnUntraced(function* (
  model: ModelBytes,
  state: readonly StateTensor[],
  weights: Readonly<Record<string, Tensor>>,
): Effect.fn.Return<Trainer, RuntimeError, Runtime | Scope.Scope> {
  const runtime = yield* Runtime;
  const session = yield* runtime.session(model);
  const fail = (message: string) => new RuntimeError({ model: model.name, message: `${model.name}: ${message}` });

  let held = new Map<string, DeviceTensor>();
  for (const { input, weight, dims } of state) {
    const start = weight === undefined ? zeros(dims) : weights[weight];
    if (start === undefined || !sameDims(start.dims, dims)) {
      return yield* fail(
        `${weight}: wanted [${dims.join(", ")}], given ${start ? `[${start.dims.join(", ")}]` : "none"}`,
      );
    }
    held.set(input, yield* runtime.upload(start));
  }
  yield* Effect.addFinalizer(() => Effect.sync(() => held.forEach((t) => t.dispose())));
  const keep = state.map((s) => s.output);
  let done = 0;

  const step: Trainer["step"] = Effect.fnUntraced(function* (rate, data) {
    const number = (x: number): HostTensor => ({ dims: [], data: Float32Array.of(x) });
    const feeds = { ...data, ...Object.fromEntries(held), step: number(done + 1), rate: number(rate) };
    const out = yield* session.run(feeds, { keep });
    const next = new Map<string, DeviceTensor>();
    for (const { input, output } of state) {
      const t = out[output];
      if (isDevice(t)) next.set(input, t);
    }
    const [loss, gradientNorm] = yield* Effect.forEach(
      ["loss", "gradient norm"],
      (name) => Effect.map(toHost(out[name]), (t) => Number(t.data[0])),
    );
    for (const [what, x] of Object.entries({ "the loss": loss, "the gradient's norm": gradientNorm })) {
      if (Number.isFinite(x)) continue;
      const why = yield* faultOf({ state, data, before: held, after: next, order: [...session.inputs.keys()] }).pipe(
        Effect.ensuring(Effect.sync(() => next.forEach((t) => t.dispose()))),
      );
      const cause = why === undefined ? "" : `: ${why}`;
      const message = `${model.name}: ${what} is ${x} at step ${
        done + 1
      }${cause}; the weights are those of step ${done}`;
      return yield* new NotFinite({ model: model.name, message });
    }
    held.forEach((t) => t.dispose());
    held = next;
    return { step: ++done, loss, gradientNorm };
  }, Effect.uninterruptible);

  const read: Trainer["read"] = Effect.fnUntraced(function* (role) {
    const found = new Map<string, Tensor>();
    for (const s of state) {
      if (s.role !== role || s.weight === undefined) continue;
      const { dims, data } = yield* toHost(held.get(s.input)!);
      // A copy: on wasm and native the values are the tensor itself, which the next step frees.
      if (data instanceof Float32Array) found.set(s.weight, { dims, data: data.slice() });
    }
    return found;
  });

  return { step, read };
});
