/**
 * A step as a value: a pure definition (name, version, settings, ports) and its program. The same value is used three
 * ways: `yield* step.run(inputs, settings)` in a script, `use: name` in a pipeline file, a row in `sau steps`.
 */
import { Effect, Schema } from "effect";
import { StepError } from "./errors.ts";
import type { InputValues, OutputValues, Ports } from "./port.ts";

/** A struct whose decoding needs nothing from the outside. Give each field a description and, unless it must be set, a default. */
export type SettingsSchema = Schema.Struct<Schema.Struct.Fields> & { readonly DecodingServices: never };

/** What an author writes. */
export interface StepDefinition<S extends SettingsSchema, I extends Ports, O extends Ports, E, R> {
  /** Raise it when the same inputs and settings give another result: cached results of older versions are not used. */
  readonly version: number;
  /** One line for `sau steps`. */
  readonly description: string;
  readonly settings: S;
  readonly inputs: I;
  readonly outputs: O;
  /** Files and folders whose content decides the result, besides the inputs; they become part of the cache key. */
  readonly files?: (settings: S["Type"]) => ReadonlyArray<string>;
  readonly run: (inputs: InputValues<I>, settings: S["Type"]) => Effect.Effect<OutputValues<O>, E, R>;
}

/**
 * A step. Its functions are written as methods so that any step may stand in a list of `AnyStep`, whose caller (the
 * pipeline) has checked names and kinds before it calls.
 */
export interface Step<Name extends string, S extends SettingsSchema, I extends Ports, O extends Ports, E, R> {
  readonly name: Name;
  readonly version: number;
  readonly description: string;
  readonly settings: S;
  readonly inputs: I;
  readonly outputs: O;
  files(settings: S["Type"]): ReadonlyArray<string>;
  /**
   * Runs the step with settings as a user writes them (defaults left out).
   * Fails with the program's own errors, or with a StepError that lists every wrong setting.
   */
  run(inputs: InputValues<I>, settings: S["Encoded"]): Effect.Effect<OutputValues<O>, E | StepError, R>;
  /** Runs the program with settings that are decoded already. */
  program(inputs: InputValues<I>, settings: S["Type"]): Effect.Effect<OutputValues<O>, E, R>;
}

/** Any step whose program needs no more than `R`. */
export interface AnyStep<R = unknown> {
  readonly name: string;
  readonly version: number;
  readonly description: string;
  readonly settings: SettingsSchema;
  readonly inputs: Ports;
  readonly outputs: Ports;
  files(settings: unknown): ReadonlyArray<string>;
  program(
    inputs: Readonly<Record<string, unknown>>,
    settings: unknown,
  ): Effect.Effect<Readonly<Record<string, unknown>>, unknown, R>;
}

export const Step = {
  /**
   * Defines a step. Inputs and settings share `with:` in a pipeline file, so no name may be both.
   * @throws TypeError when a name is both an input and a setting.
   */
  make: <const Name extends string, S extends SettingsSchema, I extends Ports, O extends Ports, E, R>(
    name: Name,
    definition: StepDefinition<S, I, O, E, R>,
  ): Step<Name, S, I, O, E, R> => {
    const both = Object.keys(definition.inputs).filter((key) => key in definition.settings.fields);
    if (both.length > 0) throw new TypeError(`step ${name}: ${both.join(", ")} is both an input and a setting`);
    const decode = Schema.decodeUnknownEffect(definition.settings);
    const program = (inputs: InputValues<I>, settings: S["Type"]) =>
      // Suspended so that a program that throws before it returns an effect fails inside the effect as well.
      Effect.suspend(() => definition.run(inputs, settings)).pipe(Effect.withSpan(name));
    return {
      ...definition,
      name,
      files: definition.files ?? (() => []),
      program,
      run: (inputs, settings) =>
        decode(settings, { errors: "all", onExcessProperty: "error" }).pipe(
          Effect.mapError((cause) => new StepError({ step: name, cause })),
          Effect.flatMap((decoded) => program(inputs, decoded)),
        ),
    };
  },
};
