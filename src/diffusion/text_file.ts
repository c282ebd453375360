/** Text files of one item a line: prompts, words. */
import { Effect } from "effect";
import { readFile, stat } from "node:fs/promises";
import { BundleError } from "./errors.ts";
import { system } from "./files.ts";

/** Larger files are no list of prompts. */
const MAX_BYTES = 16 * 1024 * 1024;

/** The lines of a file that hold something; lines that start with `#` are left out. Leading and trailing spaces stay. */
export const readLines = Effect.fnUntraced(function* (path: string) {
  const { size } = yield* system(path, "cannot be read", () => stat(path));
  if (size > MAX_BYTES) {
    return yield* new BundleError({
      file: path,
      problem: `has ${size} bytes`,
      expected: `a text file of at most ${MAX_BYTES} bytes`,
    });
  }
  const text = yield* system(path, "cannot be read", () => readFile(path, "utf8"));
  const lines = text.split(/\r?\n/).filter((line) => line.trim() !== "" && !line.startsWith("#"));
  if (lines.length === 0) {
    return yield* new BundleError({ file: path, problem: "is empty", expected: "one prompt or word a line" });
  }
  return lines;
});
