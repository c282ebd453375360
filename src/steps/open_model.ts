/** A model as settings name it: a folder or a file, parts from elsewhere in the place of its own, and LoRAs merged into it. */
import { Effect, Schema } from "effect";
import { join } from "node:path";
import { openBundle } from "../diffusion/bundle_open.ts";
import { type LoraUse, withLoras } from "../diffusion/lora_merge.ts";
import { checkBundle } from "../diffusion/networks.ts";
import { PathString } from "./path_string.ts";
import { given, maybe } from "./settings.ts";

const LoraEntry = Schema.Union([
  PathString,
  Schema.Struct({
    file: PathString.annotate({ description: "The LoRA's .safetensors file …" }),
    weight: Schema.Finite.annotate({ description: "… and its strength; 1 is as it was trained." }),
  }),
]);

/** LoRA files to merge into a model when it is opened: one, or a list, each a path or a path and a weight. */
export const Loras = Schema.Union([LoraEntry, Schema.Array(LoraEntry)]);
type LoraSetting = typeof Loras.Type | null | undefined;

/** A setting as a list, in the order of merging. */
export const loraUses = (setting: LoraSetting): LoraUse[] => {
  if (setting === null || setting === undefined) return [];
  const list: readonly (typeof LoraEntry.Type)[] = Array.isArray(setting) ? setting : [setting];
  return list.map((entry) => typeof entry === "string" ? { file: entry, weight: 1 } : entry);
};

/** Their files. */
export const loraFiles = (setting: LoraSetting): string[] => loraUses(setting).map(({ file }) => file);

/** Settings of every step that opens a model: what is merged into it, and what describes it where it is one file. */
export const formSettings = {
  lora: maybe(Loras).annotate({
    description: "LoRA files to merge into the model, each a path, or file and weight.",
  }),
  tokenizer: maybe(PathString).annotate({
    description: "Folder of a tokenizer to use in place of the model's; a checkpoint in one file holds none.",
  }),
  config: maybe(PathString).annotate({
    description:
      "Diffusers folder whose configs, scheduler and tokenizer describe a checkpoint in one file (inferred unless given), or whose " +
      "configs stand for those that an ONNX export lacks.",
  }),
  prediction: maybe(Schema.Literals(["epsilon", "v_prediction"])).annotate({
    description: "What the U-Net of a checkpoint in one file answers with; guessed unless told.",
  }),
};

export interface ModelSettings {
  readonly model: string;
  readonly unet?: string | null | undefined;
  readonly text_encoder?: string | null | undefined;
  readonly lora?: LoraSetting;
  readonly tokenizer?: string | null | undefined;
  readonly config?: string | null | undefined;
  readonly prediction?: "epsilon" | "v_prediction" | null | undefined;
}

/** Files and folders that opening the model reads; of the folder that describes it only what is read of it. */
export const modelFiles = ({ model, unet, text_encoder, lora, tokenizer, config }: ModelSettings): string[] => [
  ...given(model, unet, text_encoder, tokenizer),
  ...loraFiles(lora),
  ...(config
    ? [
      "unet/config.json",
      "text_encoder/config.json",
      "text_encoder_2/config.json",
      "vae/config.json",
      "scheduler/scheduler_config.json",
      "tokenizer",
      "tokenizer_2",
    ]
      .map((name) => join(config, name))
    : []),
];

const WithLora = Schema.Struct({ lora: Loras });
/** Whether a step's decoded settings open a model with exactly one LoRA. */
export const opensOneLora = (settings: unknown): boolean =>
  Schema.is(Schema.toType(WithLora))(settings) && loraUses(settings.lora).length === 1;

/** Opens the model with its LoRAs merged in, and checks that every part's weights are those of its network. */
export const openModel = Effect.fnUntraced(function* (
  { model, unet, text_encoder, lora, tokenizer, config, prediction }: ModelSettings,
) {
  const replace = { ...(unet ? { unet } : {}), ...(text_encoder ? { text_encoder } : {}) };
  const bundle = yield* openBundle(model, {
    replace,
    tokenizer: tokenizer ?? undefined,
    config: config ?? undefined,
    prediction: prediction ?? undefined,
  });
  yield* checkBundle(bundle);
  return yield* withLoras(bundle, loraUses(lora));
});
