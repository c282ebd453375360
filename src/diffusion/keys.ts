/** Whether a file's tensors are those that a network needs, under whichever of their names the file has them. */
import { Effect } from "effect";
import type { Header } from "../tensor/safetensors.ts";
import { sameDims } from "../tensor/tensor.ts";
import { BundleError } from "./errors.ts";
import type { Part } from "./part.ts";

/** Names that older diffusers gave to an autoencoder's attention weights. */
const olderNames: ReadonlyArray<readonly [string, string]> = [
  [".to_q.", ".query."],
  [".to_k.", ".key."],
  [".to_v.", ".value."],
  [".to_out.0.", ".proj_attn."],
];

/** The names under which files hold the tensor that today's transformers and diffusers call `name`. */
const spellings = (name: string): string[] => {
  const older = olderNames.reduce((n, [now, then]) => n.replace(now, then), name);
  const bare = name.startsWith("text_model.") ? name.slice("text_model.".length) : name;
  return [name, bare, `text_model.${bare}`, older];
};

/** One name for all the names that a tensor may have. */
export const sameTensorName = (key: string): string => {
  const bare = key.startsWith("text_model.") ? key.slice("text_model.".length) : key;
  return olderNames.reduce((n, [now, then]) => n.replace(then, now), bare);
};

/** The key under which a file holds the tensor that a network calls `name`, or undefined when it does not. */
export const keyIn = (header: Header, name: string): string | undefined =>
  spellings(name).find((key) => header.entries.has(key));

/** Tensors that some versions save although they hold no weights. */
const isHarmless = (key: string): boolean => key.endsWith("position_ids");

const some = (list: readonly string[]): string => list.slice(0, 4).join(", ") + (list.length > 4 ? ", …" : "");

/**
 * Compares a part's file with the tensors that its network needs.
 * @param expected dims by name, as the network calls its weights
 * @returns for each name the key under which the file holds it; changes are written back under that key
 */
export const checkKeys = (
  part: Part,
  expected: ReadonlyMap<string, readonly number[]>,
): Effect.Effect<ReadonlyMap<string, string>, BundleError> => {
  const found = new Map<string, string>();
  const missing: string[] = [];
  const misshapen: string[] = [];
  for (const [name, dims] of expected) {
    const key = keyIn(part.header, name);
    const entry = key === undefined ? undefined : part.header.entries.get(key);
    if (key === undefined || entry === undefined) missing.push(name);
    else {
      found.set(name, key);
      if (!sameDims(entry.dims, dims)) {
        misshapen.push(`${key}: [${entry.dims.join(", ")}], expected [${dims.join(", ")}]`);
      }
    }
  }
  const used = new Set(found.values());
  const unexpected = [...part.header.entries.keys()].filter((key) => !used.has(key) && !isHarmless(key));
  if (missing.length + misshapen.length + unexpected.length === 0) return Effect.succeed(found);
  const lists = [
    missing.length > 0 && `${missing.length} missing (${some(missing)})`,
    misshapen.length > 0 && `${misshapen.length} of another shape (${some(misshapen)})`,
    unexpected.length > 0 && `${unexpected.length} that the network does not have (${some(unexpected)})`,
  ];
  return Effect.fail(
    new BundleError({
      file: part.file,
      key: missing[0] ?? misshapen[0]?.split(":")[0] ?? unexpected[0],
      problem: `does not fit its config.json: of the tensors there are ${lists.filter((l) => l !== false).join("; ")}`,
      expected: `the ${expected.size} tensors of ${part.folder.path}'s config.json`,
      hint: "Are the weights and config.json from the same model?",
    }),
  );
};
