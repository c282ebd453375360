/** Facts about the machine and the JavaScript runtime. */
import os from "node:os";
import process from "node:process";
import type { Host } from "./report.ts";

/** `deno`, `bun` or `node`. */
export const runtimeName = (): "deno" | "bun" | "node" =>
  process.versions.deno !== undefined ? "deno" : process.versions.bun !== undefined ? "bun" : "node";

export const cores = (): number => os.availableParallelism();

/** How many cores are kept busy at the moment, seen over a fifth of a second; 0 where the system does not say. */
export const busyCores = async (): Promise<number> => {
  const times = () =>
    os.cpus().reduce(
      ({ busy, all }, { times: { user, nice, sys, irq, idle } }) => {
        const spent = user + nice + sys + irq;
        return { busy: busy + spent, all: all + spent + idle };
      },
      { busy: 0, all: 0 },
    );
  const before = times();
  await new Promise((resolve) => setTimeout(resolve, 200));
  const after = times();
  return after.all > before.all ? cores() * (after.busy - before.busy) / (after.all - before.all) : 0;
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
