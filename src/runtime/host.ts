/** Facts about the machine and the JavaScript runtime. */
import os from "node:os";
import process from "node:process";
import type { Host } from "./report.ts";

/** `deno`, `bun` or `node`. */
export const runtimeName = (): "deno" | "bun" | "node" =>
  process.versions.deno !== undefined ? "deno" : process.versions.bun !== undefined ? "bun" : "node";

export const cores = (): number => os.availableParallelism();

/** Bytes of memory that are free, or that SAU_MEMORY_GB says may be taken. */
export const freeMemory = (): number => {
  const said = Number(process.env.SAU_MEMORY_GB);
  return said > 0 ? said * 1e9 : os.freemem();
};

export const hostFacts = (): Host => {
  const runtime = runtimeName();
  return {
    runtime: `${runtime[0].toUpperCase()}${runtime.slice(1)} ${process.versions[runtime] ?? ""}`.trim(),
    platform: `${os.platform()} ${os.arch()}`,
    cpu: os.cpus()[0]?.model.trim() ?? "unknown processor",
    cores: cores(),
    memory: { total: os.totalmem(), free: os.freemem() },
  };
};
