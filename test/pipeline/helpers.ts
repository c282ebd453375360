/** A folder of its own for a test, and the pipeline that most tests of the runner use. */
import { Effect, Result } from "effect";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Cache, openCache } from "../../src/pipeline/cache.ts";
import { noServices } from "../../src/pipeline/environment.ts";
import type { RunEvent } from "../../src/pipeline/events.ts";
import { loadFile } from "../../src/pipeline/load.ts";
import { plan } from "../../src/pipeline/plan.ts";
import { run } from "../../src/pipeline/run.ts";
import { steps } from "./steps.ts";

export const withFolder = async <A>(body: (folder: string) => Promise<A>): Promise<A> => {
  const folder = await mkdtemp(join(tmpdir(), "sau-test-"));
  try {
    return await body(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
};

/** in → twice → slow → verdict over the numbers 1 2 3; `ran.log` tells which steps really ran. */
export const sumPipeline = `sau: 1
name: Sum
params: { file: n.txt, least: 5, wait: 0, by: 2 }
steps:
  in: { use: load, with: { file: "\${{ params.file }}", log: ran.log } }
  twice: { use: scale, with: { field: "\${{ steps.in.field }}", by: "\${{ params.by }}", note: twice, log: ran.log } }
  slow: { use: scale, with: { field: "\${{ steps.twice.field }}", by: 1, steps: 5, wait: "\${{ params.wait }}", log: ran.log } }
  verdict: { use: judge, with: { sum: "\${{ steps.slow.sum }}", least: "\${{ params.least }}" } }
`;

export interface Bench {
  readonly folder: string;
  readonly cache: Cache;
  readonly load: (overrides?: readonly string[]) => ReturnType<typeof loadPipeline>;
  /** Runs the pipeline and gives what happened. */
  readonly run: (
    overrides?: readonly string[],
    options?: { cache?: Cache | undefined; device?: string },
  ) => Promise<{ result: Result.Result<RunOf, unknown>; events: RunEvent[]; ran: string[] }>;
  /** `id: reason` of every step. */
  readonly plan: (overrides?: readonly string[], device?: string) => Promise<Record<string, string>>;
}

const loadPipeline = (file: string, overrides: readonly string[]) =>
  Effect.runPromise(loadFile(file, { steps, overrides }));
type PipelineOf = Awaited<ReturnType<typeof loadPipeline>>;
type RunOf = Effect.Success<ReturnType<typeof runOf>>;
const runOf = (pipeline: PipelineOf, cache: Cache | undefined, device: string, onEvent: (e: RunEvent) => void) =>
  run(pipeline, {
    environment: noServices(device),
    ...(cache === undefined ? {} : { cache }),
    onEvent: (event) => Effect.sync(() => onEvent(event)),
  });

/** A folder with the numbers, the pipeline and a cache. */
export const withBench = (body: (bench: Bench) => Promise<void>, text = sumPipeline): Promise<void> =>
  withFolder(async (folder) => {
    const file = join(folder, "p.yaml");
    await writeFile(join(folder, "n.txt"), "1\n2\n3\n");
    await writeFile(file, text);
    const cache = openCache(join(folder, "cache"));
    const log = join(folder, "ran.log");
    const load = (overrides: readonly string[] = []) => loadPipeline(file, overrides);
    await body({
      folder,
      cache,
      load,
      run: async (overrides = [], options = {}) => {
        await rm(log, { force: true });
        const events: RunEvent[] = [];
        const used = "cache" in options ? options.cache : cache;
        const program = runOf(await load(overrides), used, options.device ?? "wasm", (e) => events.push(e));
        const result = await Effect.runPromise(Effect.result(program));
        const ran = (await readFile(log, "utf8").catch(() => "")).split("\n").filter((l) => l !== "");
        return { result, events, ran };
      },
      plan: async (overrides = [], device = "wasm") => {
        const planned = await Effect.runPromise(plan(await load(overrides), { cache, device }));
        return Object.fromEntries(planned.steps.map(({ id, reason }) => [id, reason]));
      },
    });
  });
