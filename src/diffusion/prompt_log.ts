/** Prompts of a log, one a line, as many as there are: read piece by piece, so that memory does not grow with the log. */
import { MAX_TEXT } from "./tokenizer.ts";

/** Characters of a line that are kept: more than any tokenizer reads to its end. */
const KEPT = MAX_TEXT;

/**
 * The lines that hold something, without their ends. Every one is a prompt, `#` or not: whoever writes prompts could
 * otherwise hide one. Of a line longer than KEPT characters the rest is dropped as it comes in.
 */
export const promptLines = async function* (bytes: AsyncIterable<Uint8Array | string>): AsyncGenerator<string> {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: false });
  let line = "";
  for await (const piece of bytes) {
    const text = typeof piece === "string" ? piece : decoder.decode(piece, { stream: true });
    const parts = text.split("\n");
    for (const [i, part] of parts.entries()) {
      if (line.length <= KEPT) line = (line + part).slice(0, KEPT + 1);
      if (i === parts.length - 1) break;
      const whole = line.replace(/\r$/, "");
      line = "";
      if (whole.trim() !== "") yield whole;
    }
  }
  const last = (line + decoder.decode()).replace(/\r$/, "");
  if (last.trim() !== "") yield last;
};
