/** Settings that several steps share, so that one name means one thing everywhere. */
import { Effect, Option, Schema, SchemaGetter } from "effect";
import { type SchedulerName, schedulerNames } from "../diffusion/schedules/choose.ts";

/** A setting that may be left out. Describe the inner schema: editors and `sau steps` show that. */
export const defaulted = <S extends Schema.Constraint>(schema: S, value: NoInfer<S["Encoded"]>) =>
  Schema.withDecodingDefaultKey<S>(Effect.succeed(value))(schema);

/** A setting that may be left out or null. */
export const maybe = <S extends Schema.Constraint>(schema: S) => Schema.optionalKey(Schema.NullOr(schema));

const between = (minimum: number, maximum: number) => Schema.isBetween({ minimum, maximum });

/** A number from 0 to 1. */
export const Fraction = Schema.Finite.check(between(0, 1));

export const Seed = defaulted(
  Schema.Int.check(between(0, Number.MAX_SAFE_INTEGER)).annotate({
    description: "Root seed; every random number of the step derives from it and the step's name.",
  }),
  0,
);

export const Steps = defaulted(Schema.Int.check(between(1, 1000)).annotate({ description: "Sampling steps." }), 12);

const Name = Schema.Literals(schedulerNames).annotate({
  description: "How pictures are sampled; own is what the model's scheduler_config.json names.",
});

/**
 * Left out of what is written where it is DDIM, as when there was nothing else: results that the cache holds from then
 * stay what they are.
 */
export const Scheduler = Schema.optionalKey(Name).pipe(Schema.decodeTo(Name, {
  decode: SchemaGetter.withDefault(Effect.succeed<SchedulerName>("ddim")),
  encode: SchemaGetter.transformOptional(Option.filter((name) => name !== "ddim")),
}));

/** How many of something, within a bound that keeps memory in hand. */
export const Count = (most: number) => Schema.Int.check(between(1, most));

/** The paths among optional ones that were given. */
export const given = (...paths: readonly (string | null | undefined)[]): string[] =>
  paths.filter((p) => p !== null && p !== undefined);
