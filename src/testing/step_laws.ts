/**
 * Laws of whole steps, from their ports alone:
 *
 *     it("my step keeps the laws", () => checkStepLaws(myStep, { settings: { threshold: "otsu" } }));
 *
 * Inputs are made by `kinds`, one example for all ports together, and a step that wants texts gets those of a tiny model;
 * everything computes with the reference kernels unless another runtime is given.
 */
import { Effect, Exit, type Layer, ManagedRuntime, Schema, Scope } from "effect";
import fc from "fast-check";
import { Runtime } from "../runtime/runtime.ts";
import { StepError } from "../steps/errors.ts";
import type { Port, Ports, Stored } from "../steps/port.ts";
import type { SettingsSchema, Step } from "../steps/step.ts";
import type { Shape } from "./captures.ts";
import { examplesOf, type Values } from "./examples.ts";
import { type Kind, kinds as builtinKinds } from "./kinds.ts";
import { type AsyncLaw, asyncLaw, checkAsync, type LawOptions } from "./law.ts";
import { compareStored, snapshot } from "./stored.ts";
import type { TinyModelOptions } from "./tiny_model.ts";

export interface StepLawOptions<S> extends LawOptions {
  /** Settings of the step, as a user writes them. */
  readonly settings: S;
  /** Values of inputs whose kind has no arbitrary, or which are to be made otherwise, by the input's name. */
  readonly inputs?: Readonly<Record<string, (shape: Shape) => fc.Arbitrary<unknown>>>;
  /** Kinds of ports of your own, by the port's `kind`; they come before the built-in ones. */
  // deno-lint-ignore no-explicit-any
  readonly kinds?: Readonly<Record<string, Kind<any>>>;
  /** Sizes of the examples that are not to vary. */
  readonly shape?: Partial<Shape>;
  /** The tiny model for a step that takes texts. */
  readonly model?: TinyModelOptions;
  /** What the step computes with (the reference kernels unless told). */
  readonly runtime?: Layer.Layer<Runtime, unknown>;
}

/** The laws by name, for `except`. */
export const STEP_LAWS = {
  repeat: "the same inputs, settings and seed give the same bytes",
  intact: "inputs are left as they were",
  stored: "a result comes back from the cache as it went in",
  valid: "a result is what its port says",
  order: "the order of the prompts does not matter",
  others: "what is said of a prompt does not depend on the prompts after it",
  flip: "flipping what is seen flips what comes out",
  trigger: "without a trigger there is no difference",
} as const;

const decodeSettings = (settings: SettingsSchema) => (given: unknown) =>
  Schema.decodeUnknownEffect(settings)(given, { errors: "all", onExcessProperty: "error" });

/**
 * Checks a step against every law that its ports allow: {@link STEP_LAWS}. Fewer examples than for functions (20 unless
 * told), since each runs the step several times.
 * @throws LawBroken with the smallest example found; an error that says which input has no arbitrary
 */
export const checkStepLaws = async <Name extends string, S extends SettingsSchema, I extends Ports, O extends Ports, E>(
  step: Step<Name, S, I, O, E, Runtime> | Step<Name, S, I, O, E, never> | Step<Name, S, I, O, E, Runtime | Scope.Scope>,
  options: StepLawOptions<S["Encoded"]>,
): Promise<void> => {
  const { runs = 20, tolerance = 1e-5 } = options;
  const managed = ManagedRuntime.make(options.runtime ?? Runtime.layer("reference"));
  const scope = Scope.makeUnsafe();
  const inputs = Object.entries<Port<unknown>>(step.inputs), outputs = Object.entries<Port<unknown>>(step.outputs);
  // deno-lint-ignore no-explicit-any
  const kindOf = (port: Port<unknown>): Kind<any> => {
    const known: Readonly<Record<string, Kind<unknown>>> = { ...builtinKinds as object, ...options.kinds };
    return known[port.kind] ?? {};
  };
  const program = (given: Values) =>
    (step.run as (given: Values, settings: S["Encoded"]) => Effect.Effect<Values, unknown, Runtime | Scope.Scope>)(
      given,
      options.settings,
    );
  const run = (given: Values): Promise<Values> => managed.runPromise(Effect.scoped(program(given)));
  /** One of a kind's functions, on each value of a side. */
  const each = (
    side: readonly [string, Port<unknown>][],
    values: Values,
    change: (kind: Kind<unknown>, v: unknown) => unknown,
  ): Values =>
    Object.fromEntries(
      side.filter(([name]) => values[name] !== undefined).map((
        [name, port],
      ) => [name, change(kindOf(port), values[name])]),
    );
  const all = (side: readonly [string, Port<unknown>][], what: keyof Kind<unknown>): boolean =>
    side.length > 0 && side.every(([, port]) => kindOf(port)[what] !== undefined);
  const compare = (actual: Values, expected: Values, within: number): void => {
    for (const [name, port] of outputs) {
      compareStored(port.encode(actual[name]), port.encode(expected[name]), within, name);
    }
  };

  try {
    // Wrong settings are the test's mistake, not the step's.
    await Effect.runPromise(
      decodeSettings(step.settings)(options.settings).pipe(
        Effect.mapError((cause) => new StepError({ step: step.name, cause })),
      ),
    );
    const examples = await managed.runPromise(
      examplesOf(step.name, inputs, { ...options, kindOf }).pipe(Scope.provide(scope)),
    );
    const several = examples.filter(({ shape }) => shape.prompts > 1);
    const laws: AsyncLaw[] = [
      asyncLaw(STEP_LAWS.repeat, examples, async ({ given }) => compare(await run(given), await run(given), 0)),
      asyncLaw(STEP_LAWS.intact, examples, async ({ given }) => {
        const taken = inputs.filter(([name]) => given[name] !== undefined);
        const before = taken.map(([name, port]): Stored => snapshot(port, given[name]));
        await run(given);
        taken.forEach(([name, port], i) => compareStored(port.encode(given[name]), before[i], 0, name));
      }),
      asyncLaw(STEP_LAWS.stored, examples, async ({ given }) => {
        for (const [name, value] of Object.entries(await run(given))) {
          const port: Port<unknown> = step.outputs[name], stored = snapshot(port, value);
          const back = port.decode(stored);
          const decoded = Effect.isEffect(back)
            ? await managed.runPromise(back as Effect.Effect<unknown, unknown>)
            : back;
          compareStored(port.encode(decoded), stored, 0, name);
        }
      }),
      asyncLaw(STEP_LAWS.valid, examples, async ({ given }) => {
        each(outputs, await run(given), (kind, value) => kind.valid?.(value));
      }),
    ];
    if (all(inputs, "reorder") && all(outputs, "reorder")) {
      laws.push(asyncLaw(STEP_LAWS.order, several, async ({ given, shape }) => {
        const order = Array.from({ length: shape.prompts }, (_, i) => (i + 1) % shape.prompts);
        const turn = (side: typeof inputs, values: Values) => each(side, values, (kind, v) => kind.reorder!(v, order));
        compare(await run(turn(inputs, given)), turn(outputs, await run(given)), tolerance);
      }));
    }
    const telling = outputs.filter(([, port]) => kindOf(port).said !== undefined);
    if (all(inputs, "take") && telling.length > 0) {
      laws.push(asyncLaw(STEP_LAWS.others, several, async ({ given, shape }) => {
        const fewer = shape.prompts - 1;
        const alone = await run(each(inputs, given, (kind, v) => kind.take!(v, fewer)));
        const beside = await run(given);
        for (const [name, port] of telling) {
          const said = (values: Values) => kindOf(port).said!(values[name], fewer);
          compareStored(said(beside), said(alone), tolerance, name);
        }
      }));
    }
    // What a model draws is not flipped by flipping its latents, so texts and models are no part of this law.
    const seen = inputs.every(([, port]) => port.kind !== "text" && port.kind !== "model");
    if (seen && all(inputs, "flip") && all(outputs, "flip")) {
      laws.push(
        asyncLaw(
          STEP_LAWS.flip,
          fc.tuple(examples, fc.constantFrom("x" as const, "y" as const)),
          async ([{ given }, axis]) => {
            const turn = (side: typeof inputs, values: Values) => each(side, values, (kind, v) => kind.flip!(v, axis));
            compare(await run(turn(inputs, given)), turn(outputs, await run(given)), tolerance);
          },
        ),
      );
    }
    if (inputs.some(([, port]) => kindOf(port).untriggered) && outputs.some(([, port]) => kindOf(port).same)) {
      laws.push(asyncLaw(STEP_LAWS.trigger, examples, async ({ given }) => {
        const harmless = each(inputs, given, (kind, v) => kind.untriggered?.(v) ?? v);
        each(outputs, await run(harmless), (kind, value) => kind.same?.(value));
      }));
    }
    await checkAsync(`the step ${step.name}`, laws, { ...options, runs });
  } finally {
    await managed.runPromise(Scope.close(scope, Exit.void));
    await managed.dispose();
  }
};
