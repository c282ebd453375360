/** Clients that leave, on a real (tiny, random) model and a real device: what their runs held is free again. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { after, before, describe, it } from "node:test";
import { createHandler, type Handler } from "../../src/serve/handler.ts";
import { randomModel } from "../support/random_model.ts";
import { testDevice } from "../support/runtime.ts";
import { events, until } from "./support.ts";

/** How many clients leave: SAU_CANCELS=100 at night, fewer where every second counts. */
const CLIENTS = Number(process.env.SAU_CANCELS ?? 8);

describe("a client that leaves", () => {
  let folder: string;
  let handler: Handler;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), "sau-cancel-"));
    randomModel(join(folder, "models", "tiny"));
    writeFileSync(join(folder, "models", "prompts.txt"), "a red ball\na blue box\n");
    handler = createHandler({ data: join(folder, "data"), roots: [join(folder, "models")], device: testDevice });
  });
  after(async () => {
    await handler.dispose();
    rmSync(folder, { recursive: true, force: true });
  });

  const pipeline = (steps: number, seed: number) => ({
    sau: 1,
    name: "leave",
    steps: {
      text: {
        use: "encode",
        with: { model: "tiny", trigger: "zz ", prompts: "prompts.txt", count: 2 },
      },
      pairs: { use: "denoise", with: { text: "${{ steps.text.text }}", steps, seed } },
    },
  });
  const send = (steps: number, seed: number, signal?: AbortSignal) =>
    handler.fetch(
      new Request("http://localhost/run", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ inline: pipeline(steps, seed) }),
        signal: signal ?? null,
      }),
    );
  const gauge = async (name: string): Promise<number> => {
    const text = await (await handler.fetch(new Request("http://localhost/metrics"))).text();
    return Number(new RegExp(`^${name} (.*)$`, "m").exec(text)?.[1]);
  };
  const alive = async () => ({
    sessions: await gauge("sau_device_sessions"),
    tensors: await gauge("sau_device_tensors"),
    bytes: await gauge("sau_device_bytes"),
  });

  it(
    "stops its run within a step; after many of them the device holds what it held",
    { timeout: 120_000 },
    async () => {
      const whole = await events(await send(2, 0));
      assert.equal(whole.at(-1).status, "result", JSON.stringify(whole.at(-1)));
      const start = await alive();
      for (let i = 1; i <= CLIENTS; i++) {
        const response = await send(500, i);
        const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
        for (let seen = ""; !/"progress".*"name":"pairs"|"name":"pairs".*"done"/s.test(seen);) {
          const { value, done } = await reader.read();
          assert.ok(!done, seen);
          seen += value;
        }
        if (i === 1) assert.ok((await alive()).sessions > start.sessions);
        await reader.cancel();
        await until(async () => (await gauge("sau_runs_running")) === 0);
        const state = await (await handler.fetch(
          new Request(`http://localhost${response.headers.get("location")}`),
        )).json();
        assert.equal(state.state, "cancelled");
        // The last report before it stopped: far from the five hundred steps that it was to take.
        const log = await events(
          await handler.fetch(new Request(`http://localhost${response.headers.get("location")}/events`)),
        );
        const done = log.filter(({ status, name }) => status === "progress" && name === "pairs").map(({ done }) =>
          done
        );
        assert.ok(Math.max(0, ...done) < 100, String(done));
      }
      assert.deepEqual(await alive(), start);
    },
  );
});
