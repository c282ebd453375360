/** A model as settings name it: a folder or a file, and parts from elsewhere in the place of its own. */
import { Effect, Schema } from "effect";
import { join } from "node:path";
import { openBundle } from "../diffusion/bundle.ts";
import { checkBundle } from "../diffusion/networks.ts";
import { PathString } from "./path_string.ts";
import { given, maybe } from "./settings.ts";

/** Settings of every step that opens a model which matter most where it is one file. */
export const formSettings = {
  tokenizer: maybe(PathString).annotate({
    description: "Folder of a tokenizer to use in place of the model's; a checkpoint in one file holds none.",
  }),
  config: maybe(PathString).annotate({
    description:
      "Diffusers folder whose configs, scheduler and tokenizer describe a checkpoint in one file; inferred unless given.",
  }),
  prediction: maybe(Schema.Literals(["epsilon", "v_prediction"])).annotate({
    description: "What the U-Net of a checkpoint in one file answers with; guessed unless told.",
  }),
};

export interface ModelSettings {
  readonly model: string;
  readonly unet?: string | null | undefined;
  readonly text_encoder?: string | null | undefined;
  readonly tokenizer?: string | null | undefined;
  readonly config?: string | null | undefined;
  readonly prediction?: "epsilon" | "v_prediction" | null | undefined;
}

/** Files and folders that opening the model reads; of the folder that describes it only what is read of it. */
export const modelFiles = ({ model, unet, text_encoder, tokenizer, config }: ModelSettings): string[] => [
  ...given(model, unet, text_encoder, tokenizer),
  ...(config
    ? [
      "unet/config.json",
      "text_encoder/config.json",
      "vae/config.json",
      "scheduler/scheduler_config.json",
      "tokenizer",
    ]
      .map((name) => join(config, name))
    : []),
];

/** Opens the model, and checks that every part's weights are those of its network. */
export const openModel = Effect.fnUntraced(function* (
  { model, unet, text_encoder, tokenizer, config, prediction }: ModelSettings,
) {
  const replace = { ...(unet ? { unet } : {}), ...(text_encoder ? { text_encoder } : {}) };
  const bundle = yield* openBundle(model, {
    replace,
    tokenizer: tokenizer ?? undefined,
    config: config ?? undefined,
    prediction: prediction ?? undefined,
  });
  yield* checkBundle(bundle);
  return bundle;
});
