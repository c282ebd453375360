import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { Effect, Exit, Fiber, Result } from "effect";
import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { openCache } from "../../src/pipeline/cache.ts";
import { noServices } from "../../src/pipeline/environment.ts";
import type { RunEvent } from "../../src/pipeline/events.ts";
import { plan } from "../../src/pipeline/plan.ts";
import { run } from "../../src/pipeline/run.ts";
import { explain, StepError } from "../../src/steps/errors.ts";
import { type Bench, sumPipeline, withBench } from "./helpers.ts";
import { Refusal } from "./steps.ts";

const success = <A>(result: Result.Result<A, unknown>): A => {
  if (Result.isFailure(result)) throw result.failure;
  return result.success;
};

const filesUnder = async (folder: string): Promise<string[]> =>
  (await readdir(folder, { recursive: true, withFileTypes: true }))
    .filter((e) => e.isFile()).map((e) => join(e.parentPath, e.name));

describe("a run", () => {
  it("gives what the steps give, and a manifest that says how", () =>
    withBench(async ({ run, folder }) => {
      const { result, ran } = await run();
      const { verdict, steps, manifest, outputs } = success(result);
      assert.deepEqual(ran, ["load", "scale", "scale"]);
      assert.equal(verdict?.sentence, "the sum is 12");
      assert.equal(verdict?.passed, true);
      assert.deepEqual(steps.map(({ id, cached }) => [id, cached]), [
        ["in", false],
        ["twice", false],
        ["slow", false],
        ["verdict", false],
      ]);
      assert.deepEqual(Object.keys(outputs), ["verdict", "model"]);
      assert.equal(manifest.command, `sau run ${join(folder, "p.yaml")} --device wasm`);
      assert.match(manifest.steps[0].files[join(folder, "n.txt")], /^[0-9a-f]{64}$/);
      assert.equal(manifest.versions.sau, "0.1.0");
      assert.equal(manifest.pipeline.text, sumPipeline);
    }));

  it("tells of every step: initiate, progress in percent, done, and ready at the end", () =>
    withBench(async ({ run }) => {
      const { events } = await run();
      const of = (name: string) => events.flatMap((e) => "name" in e && e.name === name ? [e] : []);
      assert.deepEqual(of("slow").map((e) => e.status), ["initiate", ...Array(5).fill("progress"), "done"]);
      assert.deepEqual(of("slow").flatMap((e) => e.status === "progress" ? [e.progress] : []), [20, 40, 60, 80, 100]);
      assert.equal(events[events.length - 1].status, "ready");
    }));

  it("does nothing twice: a second run answers from the cache with the same values", () =>
    withBench(async ({ run }) => {
      const first = success((await run()).result);
      const { result, ran } = await run();
      const second = success(result);
      assert.deepEqual(ran, []);
      assert.ok(second.steps.every(({ cached }) => cached));
      assert.deepEqual(second.steps.map(({ outputs }) => outputs), first.steps.map(({ outputs }) => outputs));
      assert.deepEqual(second.steps.map(({ key }) => key), first.steps.map(({ key }) => key));
    }));

  it("runs again what a change touches, and what follows from it", () =>
    withBench(async ({ run, folder }) => {
      await run();
      assert.deepEqual((await run(["least=50"])).ran, []);
      assert.deepEqual((await run(["by=3"])).ran, ["scale", "scale"]);
      assert.deepEqual((await run([], { device: "webgpu" })).ran, ["load", "scale", "scale"]);
      await writeFile(join(folder, "n.txt"), "1\n2\n30\n");
      assert.deepEqual((await run()).ran, ["load", "scale", "scale"]);
    }));

  it("neither reads nor keeps results without a cache", () =>
    withBench(async ({ run, folder }) => {
      assert.deepEqual((await run([], { cache: undefined })).ran, ["load", "scale", "scale"]);
      assert.deepEqual(await readdir(folder).then((names) => names.includes("cache")), false);
    }));

  it("keeps a verdict that fails a value, not an error", () =>
    withBench(async ({ run }) => {
      const { verdict } = success((await run(["least=50"])).result);
      assert.equal(verdict?.passed, false);
      assert.equal(verdict?.figures[0].threshold, ">= 50");
    }));
});

describe("why a step must run", () => {
  it("is told: never run, a setting, an input, a file, the device, or a result that is gone", () =>
    withBench(async ({ run, plan, folder, cache }) => {
      assert.equal((await plan()).twice, "has not run yet");
      await run();
      assert.deepEqual(await plan(), { in: "cached", twice: "cached", slow: "cached", verdict: "cached" });
      assert.deepEqual(await plan(["by=3", "least=9"]), {
        in: "cached",
        twice: "setting by: 2 → 3",
        slow: "input field: step twice must run",
        verdict: "setting least: 5 → 9; input sum: step slow must run",
      });
      assert.equal((await plan([], "webgpu")).in, "device wasm → webgpu");
      await rm(join(cache.folder, "v1", "results"), { recursive: true });
      assert.equal((await plan()).slow, "its result is no longer in the cache");
      await writeFile(join(folder, "n.txt"), "4");
      assert.equal((await plan()).in, `${join(folder, "n.txt")} has changed`);
    }));
});

describe("the cache", () => {
  it("notices any damaged byte of any file, computes again and says so", () =>
    withBench(async ({ run, cache }) => {
      const first = success((await run()).result);
      for (const file of await filesUnder(join(cache.folder, "v1", "results"))) {
        const bytes = await readFile(file);
        bytes[Math.floor(bytes.length / 2)] ^= 0xff;
        await writeFile(file, bytes);
        const { result, events } = await run();
        assert.ok(events.some((e) => e.status === "note" && /damaged/.test(e.message)), `${file} was believed`);
        assert.deepEqual(
          success(result).steps.map(({ outputs }) => outputs),
          first.steps.map(({ outputs }) => outputs),
        );
        assert.ok((await run()).events.every((e) => e.status !== "note"), "the entry should be whole again");
      }
    }));

  it("holds whole entries only: two runs at once leave one, and nothing aside", () =>
    withBench(async ({ load, cache }) => {
      const pipeline = await load();
      const once = run(pipeline, { environment: noServices("wasm"), cache });
      await Effect.runPromise(Effect.all([once, once, once], { concurrency: "unbounded" }));
      assert.deepEqual(await readdir(join(cache.folder, "v1", "tmp")), []);
      const entries = (await filesUnder(join(cache.folder, "v1", "results"))).filter((f) => f.endsWith("entry.json"));
      assert.equal(entries.length, 4);
    }));

  it("that cannot be written costs a note, not the run", () =>
    withBench(async ({ run, folder }) => {
      await writeFile(join(folder, "file"), "in the way");
      const { result, events } = await run([], { cache: openCache(join(folder, "file")) });
      assert.equal(success(result).verdict?.passed, true);
      assert.equal(events.filter((e) => e.status === "note" && /could not be kept/.test(e.message)).length, 4);
    }));
});

describe("a run that is stopped", () => {
  it("keeps the steps that were finished; the next run does only the rest", () =>
    withBench(async ({ load, run: again, cache }) => {
      const pipeline = await load(["wait=200"]);
      let started = () => {};
      const reached = new Promise<void>((resolve) => started = resolve);
      const program = run(pipeline, {
        environment: noServices("wasm"),
        cache,
        onEvent: (e) => Effect.sync(() => e.status === "progress" && e.name === "slow" && started()),
      });
      const fiber = Effect.runFork(program);
      await reached;
      const exit = await Effect.runPromise(Effect.andThen(Fiber.interrupt(fiber), Fiber.await(fiber)));
      assert.ok(Exit.isFailure(exit));
      assert.deepEqual(await readdir(join(cache.folder, "v1", "tmp")), []);
      const { ran, result } = await again(["wait=200"]);
      assert.deepEqual(ran, ["scale"]);
      assert.equal(success(result).verdict?.sentence, "the sum is 12");
    }));
});

describe("a step that fails", () => {
  const failing = (how: string) => `sau: 1\nname: f\nsteps:\n  wrong: { use: fail, with: { how: ${how} } }\n`;
  const failure = async (how: string): Promise<StepError> => {
    const found: StepError[] = [];
    await withBench(async ({ run }) => {
      const { result } = await run();
      assert.ok(Result.isFailure(result) && result.failure instanceof StepError);
      found.push(result.failure);
    }, failing(how));
    return found[0];
  };

  it("is named with its cause", async () => {
    const error = await failure("error");
    assert.equal(error.step, "wrong");
    assert.ok(error.cause instanceof Refusal);
    assert.equal(explain(error), `step "wrong" failed: it would not`);
  });

  it("is named when it is a bug in the step, or a promised output that is missing", async () => {
    assert.match(explain(await failure("throw")), /step "wrong" failed: a bug/);
    assert.match(explain(await failure("forget")), /step "wrong" failed: its program gave no sum/);
  });

  it("is explained when the system refuses", async () => {
    assert.match(explain(await failure("enospc")), /no room left on the disk while writing \/x/);
  });
});

describe("steps that do not need each other", () => {
  const fan = `sau: 1
name: Fan
params: { file: n.txt, wait: 30, bad: null }
steps:
  in: { use: load, with: { file: "\${{ params.file }}", log: ran.log } }
  each: { use: scale, foreach: [1, 2, 3, 4, 5], with: { field: "\${{ steps.in.field }}", by: "\${{ item }}", wait: "\${{ params.wait }}" } }
outputs: { sum: "\${{ steps.each.sum }}" }
`;
  /** The most that ran at once. */
  const most = (events: readonly RunEvent[]): number => {
    let now = 0, top = 0;
    for (const e of events) {
      if (e.status === "initiate") top = Math.max(top, ++now);
      if (e.status === "done" && !e.cached) now--;
    }
    return top;
  };
  const runOn = async ({ load, cache }: Bench, lanes: number) => {
    const events: RunEvent[] = [];
    const environment = { ...noServices("wasm"), lanes: Effect.succeed(lanes) };
    const onEvent = (e: RunEvent) => Effect.sync(() => void events.push(e));
    const result = await Effect.runPromise(Effect.result(run(await load(), { environment, cache, onEvent })));
    return { events, result };
  };

  it("run side by side, as many as the device has lanes, four at the most; results stand in the file's order", () =>
    withBench(async (bench) => {
      const { events, result } = await runOn(bench, 3);
      assert.equal(most(events), 3);
      const { steps, outputs } = success(result);
      assert.deepEqual(steps.map(({ id }) => id), ["in", "each-1", "each-2", "each-3", "each-4", "each-5"]);
      assert.deepEqual(Object.values(outputs).map(({ value }) => value), [6, 12, 18, 24, 30]);
      await rm(bench.cache.folder, { recursive: true });
      assert.equal(most((await runOn(bench, 64)).events), 4);
      await rm(bench.cache.folder, { recursive: true });
      assert.equal(most((await runOn(bench, 1)).events), 1);
    }, fan));

  it("do not ask for a device when all is at hand", () =>
    withBench(async (bench) => {
      await runOn(bench, 2);
      const environment = { ...noServices("wasm"), lanes: Effect.die("opened") };
      const again = await Effect.runPromise(run(await bench.load(), { environment, cache: bench.cache }));
      assert.ok(again.steps.every(({ cached }) => cached));
    }, fan));

  it("stop when one fails; what was finished is kept", () =>
    withBench(
      async (bench) => {
        const { events, result } = await runOn(bench, 2);
        assert.ok(Result.isFailure(result));
        assert.match(explain(result.failure), /step "bad" failed/);
        assert.ok(events.some((e) => e.status === "initiate" && e.name === "slow"));
        assert.ok(!events.some((e) => e.status === "done" && e.name === "slow"), "the slow one was interrupted");
        const kept = await Effect.runPromise(plan(await bench.load(), { cache: bench.cache, device: "wasm" }));
        assert.deepEqual(kept.steps.map(({ cached }) => cached), [true, false, false]);
      },
      `sau: 1
name: One fails
steps:
  in: { use: load, with: { file: n.txt } }
  slow: { use: scale, with: { field: "\${{ steps.in.field }}", steps: 1000, wait: 20 } }
  bad: { use: fail, with: { how: error } }
outputs: {}
`,
    ));
});
