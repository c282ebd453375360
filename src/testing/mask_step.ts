/** A step from a field to a mask as the plain function that the mask laws are asked of. */
import { Effect, Result } from "effect";
import type { Field, Mask } from "../steps/ports.ts";
import type { Port } from "../steps/port.ts";
import type { SettingsSchema, Step } from "../steps/step.ts";
import { size, type Tensor } from "../tensor/tensor.ts";
import { fieldOf } from "./kinds.ts";

/** A step that makes a mask of a field and of nothing else. */
export type FieldToMask<S extends SettingsSchema> = Step<
  string,
  S,
  { readonly field: Port<Field> },
  { readonly mask: Port<Mask> },
  unknown,
  never
>;

/**
 * The step's masks of a field [...batch, h, w], each map a prompt's own.
 * @param settings of the step for a threshold
 */
export const maskFunction =
  <S extends SettingsSchema>(step: FieldToMask<S>, settings: (threshold: number) => S["Encoded"]) =>
  (field: Tensor, threshold: number): Tensor => {
    const [h, w] = field.dims.slice(-2);
    const maps = { dims: [size(field.dims.slice(0, -2)), h, w], data: field.data };
    const exit = Effect.runSync(Effect.result(step.run({ field: fieldOf(maps, 2) }, settings(threshold))));
    if (Result.isFailure(exit)) throw exit.failure;
    const { prompts } = exit.success.mask;
    if (prompts.dims.join() !== maps.dims.join()) {
      throw new Error(`${step.name}: prompts are [${prompts.dims}], expected [${maps.dims}]`);
    }
    return { dims: field.dims, data: prompts.data };
  };
