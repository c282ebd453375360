/**
 * The most memory that this process held during something, from the kernel's own mark (VmHWM), which Linux alone keeps and
 * lets be set back. It is the whole process: what it held already, and what earlier work left it with, is in it.
 */
import { readFileSync, writeFileSync } from "node:fs";

/** Peaks that are being taken; several may overlap. */
const running = new Set<{ most: number }>();

/** VmHWM in bytes; undefined where there is none. */
const mark = (): number | undefined => {
  try {
    const kilobytes = /^VmHWM:\s+(\d+) kB$/mu.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
    return kilobytes === undefined ? undefined : 1024 * Number(kilobytes);
  } catch {
    return undefined;
  }
};

const note = (): boolean => {
  const bytes = mark();
  for (const peak of running) peak.most = Math.max(peak.most, bytes ?? 0);
  return bytes !== undefined;
};

/** Begins; the function that it gives ends it and says the bytes, or undefined where the system does not tell. */
export const measurePeak = (): () => number | undefined => {
  let told = note();
  try {
    writeFileSync("/proc/self/clear_refs", "5");
  } catch {
    told = false;
  }
  const own = { most: 0 };
  running.add(own);
  return () => {
    told &&= note();
    running.delete(own);
    return told ? own.most : undefined;
  };
};
