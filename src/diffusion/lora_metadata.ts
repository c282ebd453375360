/** What diffusers writes about a LoRA into the file's metadata: `lora_adapter_metadata`, PEFT's LoraConfig of each part. */
import { Option, Schema } from "effect";
import type { Layer } from "./lora_names.ts";

/** Key of the metadata that changes what the factors mean. */
export const ADAPTER_METADATA = "lora_adapter_metadata";

const MAX_TEXT = 1 << 20;
const Adapter = Schema.fromJsonString(Schema.Record(Schema.String, Schema.Unknown));
const Pattern = Schema.Record(Schema.String, Schema.Finite);

/**
 * The factor of a layer's change that the metadata asks for; undefined where it says nothing of the layer's part. Patterns
 * are taken as the names that diffusers writes, at the end of a layer's name; a stranger's regular expression is not run.
 */
export const adapterScale = (
  metadata: Readonly<Record<string, string>>,
  { part, name }: Layer,
  rank: number,
): { readonly scale: number } | undefined => {
  const text = metadata[ADAPTER_METADATA];
  if (text === undefined || text.length > MAX_TEXT) return undefined;
  const config = Option.getOrUndefined(Schema.decodeUnknownOption(Adapter)(text));
  const alpha = config?.[`${part}.lora_alpha`];
  if (config === undefined || typeof alpha !== "number") return undefined;
  const patterns = Option.getOrElse(
    Schema.decodeUnknownOption(Pattern)(config[`${part}.alpha_pattern`]),
    (): Readonly<Record<string, number>> => ({}),
  );
  const own = Object.entries(patterns).find(([pattern]) => {
    const literal = pattern.replace(/^\^/, "");
    return name === literal || name.endsWith(`.${literal}`);
  });
  const root = config[`${part}.use_rslora`] === true ? Math.sqrt(rank) : rank;
  return { scale: (own?.[1] ?? alpha) / root };
};
