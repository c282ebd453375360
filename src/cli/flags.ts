/** Flags that several commands share. */
import { Schema } from "effect";
import { Argument, Flag } from "effect/cli";
import { Device, Precision } from "../runtime/mod.ts";

export const file = Argument.String("FILE").pipe(
  Argument.withDescription("Pipeline file (YAML or JSON)"),
);

export const optionalText = (name: string, description: string) =>
  Flag.String(name).pipe(Flag.withDescription(description), Flag.optional);

/** What a checkpoint in one file does not say. */
export const form = {
  config: optionalText(
    "config",
    "Diffusers folder that describes a model in one file (inferred unless given) or an ONNX export without configs",
  ),
  tokenizer: optionalText("tokenizer", "Folder of a tokenizer to use in place of the model's, or of CLIP's own"),
};

export const set = Flag.String("set").pipe(
  Flag.withDescription("NAME=VALUE sets a parameter, STEP.SETTING=VALUE a step's setting; may be given several times"),
  Flag.atLeast(0),
);

export const lora = Flag.String("lora").pipe(
  Flag.withDescription(
    "FILE[:WEIGHT] of a LoRA to merge into the model (weight 1 unless told); may be given several times",
  ),
  Flag.atLeast(0),
);

export const loraOnly = Flag.Boolean("lora-only").pipe(
  Flag.withDescription("With one LoRA: hand back the cured LoRA alone, without the folder of the whole model"),
  Flag.withDefault(false),
);

export const loraError = Flag.Finite("lora-error").pipe(
  Flag.withDescription("Share of a layer's change that the cured LoRA may miss, 0.0001 to 0.5; more makes lower ranks"),
  Flag.withSchema(Schema.Finite.check(Schema.isBetween({ minimum: 1e-4, maximum: 0.5 }))),
  Flag.withDefault(0.005),
);

export const device = Flag.Literals("device", Device.literals).pipe(
  Flag.withDescription(
    "What computes: a hardware GPU, native code or WebAssembly; auto takes the first that works. reference is slow, for tests",
  ),
  Flag.withDefault("auto"),
);

export const precision = Flag.Literals("precision", Precision.literals).pipe(
  Flag.withDescription(
    "How pictures are drawn: auto takes float16 for weights stored so, on a GPU whose halves pass a check; training and captures are always float32",
  ),
  Flag.withDefault("auto"),
);

export const json = Flag.Boolean("json").pipe(
  Flag.withDescription("Write for programs: JSON, one object a line while running"),
  Flag.withDefault(false),
);

export const noCache = Flag.Boolean("no-cache").pipe(
  Flag.withDescription("Compute every step again and keep no result"),
  Flag.withDefault(false),
);

export const allowCode = Flag.Boolean("allow-code").pipe(
  Flag.withDescription(
    "Run steps that the pipeline file names by path (use: ./my-step.ts#myStep): their code runs as you",
  ),
  Flag.withDefault(false),
);

const ids = (name: string, description: string) =>
  Flag.String(name).pipe(Flag.withDescription(description), Flag.atLeast(0));

/** Which steps a command is about. */
export const selection = {
  only: ids("only", "STEP: this step and what it needs, no other; may be given several times"),
  from: ids("from", "STEP: run this step and all that follow from it again, cached or not"),
  force: Flag.Boolean("force").pipe(
    Flag.withDescription("Run every step again, cached or not, and keep the new results"),
    Flag.withDefault(false),
  ),
};
