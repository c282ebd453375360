/** A part's weights as a safetensors file of their own, in the names and element types that they have; for parts of other forms. */
import { Effect } from "effect";
import { headerOf } from "../tensor/safetensors.ts";
import { Disk, writing } from "./disk.ts";
import type { BundleError } from "./errors.ts";
import type { Part } from "./part.ts";
import { checkChanges, type PartSource, tensorOf } from "./weights.ts";

/** As the model's own library saves it: every version of transformers reads a text encoder with this prefix. */
const savedName = ({ name }: Part, key: string): string =>
  name === "text_encoder" && !key.startsWith("text_model.") ? `text_model.${key}` : key;

/** Writes the file, one tensor in memory at a time. */
export const writePart = Effect.fn("writePart")(function* (
  source: PartSource,
  part: Part,
  path: string,
): Effect.fn.Return<void, BundleError> {
  yield* checkChanges(source, part);
  const disk = yield* Disk;
  const keys = new Map([...part.header.entries.keys()].map((key) => [savedName(part, key), key]));
  const saved = new Map([...part.header.entries].map(([key, entry]) => [savedName(part, key), entry]));
  const { bytes: head, order } = headerOf(saved, { format: "pt" });
  const pieces = async function* () {
    yield head;
    for (const name of order) yield await Effect.runPromise(tensorOf(source, part, keys.get(name) ?? name));
  };
  yield* writing(path, () => disk.writeFile(path, pieces()));
});
