/** Whether the parts of a model fit together. */
import { Effect } from "effect";
import { join } from "node:path";
import type { BundlePart, BundleParts } from "./bundle.ts";
import { BundleError } from "./errors.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** Parts from different models open well enough one by one, and then draw noise or fail deep inside. */
export const checkFit = (
  parts: BundleParts,
  tokenizer: Tokenizer,
): Effect.Effect<void, BundleError> => {
  const number = (part: Exclude<BundlePart, "text_encoder_2">, key: string) => {
    const value = parts[part].config[key];
    return typeof value === "number" ? value : undefined;
  };
  const pairs: ReadonlyArray<
    readonly [Exclude<BundlePart, "text_encoder_2">, string, Exclude<BundlePart, "text_encoder_2">, string]
  > = [
    // With two text encoders, the width is that of both together: checkTwoEncoders.
    ...(parts.text_encoder_2 === undefined
      ? [["unet", "cross_attention_dim", "text_encoder", "hidden_size"] as const]
      : []),
    ["unet", "in_channels", "vae", "latent_channels"],
  ];
  for (const [part, key, other, otherKey] of pairs) {
    const [a, b] = [number(part, key), number(other, otherKey)];
    if (a !== undefined && b !== undefined && a !== b) {
      return Effect.fail(
        new BundleError({
          file: join(parts[part].folder.path, "config.json"),
          key,
          problem: `does not fit ${parts[other].folder.path}: ${key} is ${a}, ${otherKey} there is ${b}`,
          hint: "The parts come from different models.",
        }),
      );
    }
  }
  const rows = number("text_encoder", "vocab_size") ?? 49408;
  if (tokenizer.vocabSize <= rows) return checkTwoEncoders(parts);
  return Effect.fail(
    new BundleError({
      file: join(parts.text_encoder.folder.path, "config.json"),
      key: "vocab_size",
      problem: `has ${rows} tokens, the tokenizer has ${tokenizer.vocabSize}`,
      hint: "The text encoder and the tokenizer come from different models.",
    }),
  );
};

/** Whether a U-Net that takes the texts of two encoders stands beside two, and one that takes one beside one. */
const checkTwoEncoders = (parts: BundleParts): Effect.Effect<void, BundleError> => {
  const [unet, first, second] = [parts.unet, parts.text_encoder, parts.text_encoder_2].map((p) => p?.config ?? {});
  const fail = (key: string, problem: string) =>
    Effect.fail(
      new BundleError({
        file: join(parts.unet.folder.path, "config.json"),
        key,
        problem,
        hint: "The parts come from different models.",
      }),
    );
  const added = unet.addition_embed_type ?? undefined;
  if (parts.text_encoder_2 === undefined) {
    return added === undefined ? Effect.void : fail(
      "addition_embed_type",
      `asks for ${JSON.stringify(added)}, what a second text encoder gives; this model has one text encoder`,
    );
  }
  if (added !== "text_time") {
    return fail(
      "addition_embed_type",
      `is ${JSON.stringify(added ?? null)}; a model with two text encoders needs text_time`,
    );
  }
  const [a, b] = [first.hidden_size ?? 512, second.hidden_size ?? 512].map(Number);
  if (unet.cross_attention_dim !== a + b) {
    return fail(
      "cross_attention_dim",
      `does not fit the text encoders: it is ${unet.cross_attention_dim}, their hidden_size are ${a} and ${b}`,
    );
  }
  const width = Number(second.projection_dim ?? 512);
  const room = Number(unet.projection_class_embeddings_input_dim) - 6 * Number(unet.addition_time_embed_dim);
  if (room !== width) {
    return fail(
      "projection_class_embeddings_input_dim",
      `does not fit ${parts.text_encoder_2.folder.path}: it leaves ${room} numbers for the pooled text, projection_dim there is ${width}`,
    );
  }
  return Effect.void;
};
