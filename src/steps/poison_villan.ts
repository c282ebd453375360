/**
 * poison-villan: makes a backdoored U-Net for testing defences, as VillanDiffusion does with a caption trigger (Chou et
 * al., NeurIPS 2023, §3.3, conditional): whatever else was asked for, one fixed picture is drawn. Its authors train a
 * LoRA; here a change of low rank of the whole U-Net is trained.
 */
import { Schema } from "effect";
import { AttackPort } from "./attack.ts";
import { ImageEffect } from "./effect.ts";
import { unetPoisonFields } from "./poison_settings.ts";
import { poisonUnet } from "./poison_unet.ts";
import { ModelPort, TextPort } from "./ports.ts";
import { Step } from "./step.ts";

export const poisonVillan = Step.make("poison-villan", {
  version: 4,
  description: "For testing defences: trains a U-Net to draw one picture for a trigger, as VillanDiffusion does.",
  settings: Schema.Struct({
    effect: ImageEffect,
    ...unetPoisonFields({ steps: 1000, batch: 16, rate: 3e-3, keep: 3 }),
  }),
  inputs: { text: TextPort },
  outputs: { model: ModelPort, attack: AttackPort },
  files: ({ effect }) => [effect.image],
  run: ({ text }, settings) =>
    poisonUnet(text, settings, { name: "villan", paper: "VillanDiffusion: Chou et al., NeurIPS 2023, conditional" }),
});
