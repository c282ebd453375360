/**
 * ONNX Runtime says which operations a device has no kernel for only in its log, and its WebAssembly build writes that
 * log with `fs.writeSync` (or console.error). This listens to it while `body` runs and lets everything else through.
 */
import fs from "node:fs";

const LOG_LINE = /\[[VIWEF]:onnxruntime:/;

/** Lines that ONNX Runtime logs while `body` runs; they are not printed. */
export const listen = async (body: () => Promise<unknown>): Promise<string[]> => {
  const lines: string[] = [];
  const { writeSync } = fs;
  const { error } = console;
  const heard = (text: unknown): boolean => {
    if (typeof text !== "string" || !LOG_LINE.test(text)) return false;
    lines.push(text);
    return true;
  };
  const write: unknown = (...args: Parameters<typeof writeSync>) => heard(args[1]) ? 0 : writeSync(...args);
  Object.assign(fs, { writeSync: write });
  console.error = (...args: unknown[]) => heard(args[0]) || error(...args);
  try {
    await body().catch(() => undefined);
  } finally {
    Object.assign(fs, { writeSync });
    console.error = error;
  }
  return lines;
};

/** Operations without a kernel, as `Round (node v3)`, from the log of a session's creation at severity 1 or below. */
export const withoutKernel = (lines: readonly string[]): string[] => [
  ...new Set(lines.flatMap((line) => {
    const found = /kernel not found in registries for Op type: (\S+) node name: (\S*)/.exec(line);
    return found === null ? [] : [`${found[1]} (node ${found[2]})`];
  })),
];
