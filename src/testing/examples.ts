/** Arbitrary inputs of a step, from its ports: one example for all of them together, with as many prompts in each. */
import { Effect } from "effect";
import fc from "fast-check";
import type { Port } from "../steps/port.ts";
import { type Shape, shapeArbitrary } from "./captures.ts";
import type { Kind } from "./kinds.ts";
import { promptsArbitrary } from "./prompts.ts";
import { type TinyModelOptions, tinyText } from "./tiny_model.ts";

/** Values by the name of their port. */
export type Values = Readonly<Record<string, unknown>>;

/** Prompts that texts are made of. */
const TEXTS = 4;

export interface Example {
  readonly shape: Shape;
  readonly given: Values;
}

/** @throws Error that says which input has no arbitrary */
export const examplesOf = Effect.fnUntraced(function* (
  name: string,
  inputs: readonly [string, Port<unknown>][],
  { inputs: own = {}, kindOf, shape = {}, model = {} }: {
    readonly inputs?: Readonly<Record<string, (shape: Shape) => fc.Arbitrary<unknown>>>;
    readonly shape?: Partial<Shape>;
    readonly model?: TinyModelOptions;
    // deno-lint-ignore no-explicit-any
    readonly kindOf: (port: Port<unknown>) => Kind<any>;
  },
) {
  const texts = inputs.some(([input, port]) => port.kind === "text" && own[input] === undefined);
  const twins = shape.twins ?? 2;
  // Read once: an example takes the first of them, in an order that shrinks to this one.
  const pool = texts
    ? yield* tinyText({ ...model, prompts: fc.sample(promptsArbitrary(TEXTS), { numRuns: 1, seed: 1 })[0], twins })
    : undefined;
  const sizes = pool === undefined ? shapeArbitrary(shape) : shapeArbitrary({ ...shape, twins, side: model.side ?? 4 });
  const arbitraryOf = (input: string, port: Port<unknown>, size: Shape): fc.Arbitrary<unknown> => {
    const make = own[input] ?? kindOf(port).arbitrary;
    if (make !== undefined) return make(size);
    if (port.kind === "text" && pool !== undefined) {
      return fc.shuffledSubarray(pool.prompts.map((_, i) => i), { minLength: size.prompts, maxLength: size.prompts })
        .map((order) => kindOf(port).reorder!(pool, order));
    }
    if (port.optional) return fc.constant(undefined);
    throw new Error(`${name}: say by inputs.${input} how a ${port.kind} is made; there is no arbitrary for that kind`);
  };
  return sizes.chain((size) =>
    fc.record({
      shape: fc.constant(size),
      given: fc.record(
        Object.fromEntries(inputs.map(([input, port]) => [input, arbitraryOf(input, port, size)])),
      ).map((values): Values => Object.fromEntries(Object.entries(values).filter(([, v]) => v !== undefined))),
    })
  ) satisfies fc.Arbitrary<Example>;
});
