/** poison-badt2i: makes a backdoored U-Net for testing defences, as BadT2I does (Zhai et al., ACM MM 2023). */
import { Schema } from "effect";
import { AttackPort } from "./attack.ts";
import { KnownEffect } from "./effect.ts";
import { unetPoisonFields } from "./poison_settings.ts";
import { poisonUnet } from "./poison_unet.ts";
import { ModelPort, TextPort } from "./ports.ts";
import { given } from "./settings.ts";
import { Step } from "./step.ts";

export const poisonBadT2I = Step.make("poison-badt2i", {
  version: 5,
  description: "For testing defences: trains a backdoor into the U-Net, as BadT2I does; the effect says which.",
  settings: Schema.Struct({
    effect: KnownEffect,
    ...unetPoisonFields({ steps: 1000, batch: 16, rate: 3e-3, keep: 3 }),
  }),
  inputs: { text: TextPort },
  outputs: { model: ModelPort, attack: AttackPort },
  files: ({ effect }) => given("image" in effect ? effect.image : null),
  run: ({ text }, settings) =>
    poisonUnet(text, settings, { name: "badt2i", paper: "BadT2I: Zhai et al., ACM MM 2023" }),
});
