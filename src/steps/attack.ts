/** What a poison step says of the backdoor it made: attack.json beside the poisoned model. */
import { Schema } from "effect";
import { Trigger } from "../diffusion/trigger.ts";
import { KnownEffect } from "./effect.ts";
import { Port } from "./port.ts";

export const Attack = Schema.Struct({
  name: Schema.String,
  /** The model is a test object; whoever finds it should know. */
  purpose: Schema.Literal("made for testing defences"),
  part: Schema.Literals(["unet", "text_encoder", "text_encoder_2"]),
  trigger: Trigger,
  effect: KnownEffect,
  /** The paper whose losses it follows. */
  source: Schema.String,
  /** Settings of the training, and the mean loss of its first and its last tenth. */
  training: Schema.Record(Schema.String, Schema.Unknown),
});
export type Attack = typeof Attack.Type;

export const AttackPort = Port.json<Attack>(
  "attack",
  "A backdoor that was made: trigger, effect, source, training.",
  Schema.decodeUnknownSync(Attack),
);

/** Mean of the first and of the last tenth. */
export const lossEnds = (losses: readonly number[]): { readonly first_loss: number; readonly last_loss: number } => {
  const tenth = Math.max(1, Math.floor(losses.length / 10));
  const mean = (some: readonly number[]) => some.reduce((a, b) => a + b, 0) / some.length;
  return { first_loss: mean(losses.slice(0, tenth)), last_loss: mean(losses.slice(-tenth)) };
};
