/** `sau serve` as a process, as a user starts it, talked to over HTTP by the typed client. */
import { Effect, Result, Stream } from "effect";
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { connect } from "../../src/serve/client.ts";
import { randomModel } from "../support/random_model.ts";
import { until } from "./support.ts";

const main = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));
const TOKEN = "a token of sixteen letters";

const start = (args: string[], env: Record<string, string>) => {
  const runtime = "deno" in process.versions ? ["run", "-A", main] : [main];
  const child = spawn(process.execPath, [...runtime, "serve", "--device", "wasm", "--json", ...args], {
    env: { ...process.env, ...env },
  });
  let out = "";
  let err = "";
  child.stdout.on("data", (text) => out += text);
  child.stderr.on("data", (text) => err += text);
  const ended = new Promise<number | null>((done) => child.on("exit", (code) => done(code)));
  const url = async (): Promise<string> => {
    await until(() => out.includes("\n") || child.exitCode !== null);
    assert.equal(child.exitCode, null, err);
    return JSON.parse(out.split("\n")[0]).url;
  };
  return { child, ended, url, errors: () => err };
};

describe("sau serve", () => {
  let folder: string;
  let server: ReturnType<typeof start> | undefined;
  let children: ChildProcess[] = [];
  before(() => {
    folder = mkdtempSync(join(tmpdir(), "sau-served-"));
    randomModel(join(folder, "models", "tiny"));
    writeFileSync(join(folder, "models", "prompts.txt"), "a red ball\na blue box\n");
  });
  after(() => {
    for (const child of children) child.kill("SIGKILL");
    rmSync(folder, { recursive: true, force: true });
  });
  const begin = () => {
    const args = ["--port", "0", "--data", join(folder, "data"), "--root", join(folder, "models"), "--drain", "1"];
    server = start(args, { SAU_TOKENS: TOKEN, SAU_CACHE: join(folder, "cache") });
    children = [...children, server.child];
    return server.url();
  };
  const pipeline = (steps: number, seed = 0) => ({
    sau: 1,
    name: "served",
    steps: {
      text: { use: "encode", with: { model: "tiny", trigger: "zz ", prompts: "prompts.txt", count: 2, seed } },
      pairs: { use: "denoise", with: { text: "${{ steps.text.text }}", steps } },
    },
  });

  it("without tokens it listens on a loopback address only", { timeout: 60_000 }, async () => {
    const refused = start(["--host", "0.0.0.0"], { SAU_TOKENS: "" });
    assert.equal(await refused.ended, 2);
    assert.match(refused.errors(), /needs tokens/);
  });

  it("runs a pipeline for its typed client, whose errors are typed too", { timeout: 120_000 }, async () => {
    const url = await begin();
    const found = await Effect.runPromise(Effect.gen(function* () {
      const sau = yield* connect(url, { token: TOKEN });
      assert.deepEqual(yield* sau.ping(), { status: "ok" });
      const events = yield* sau.run({ headers: {}, payload: { inline: pipeline(2) } });
      const all = yield* Stream.runCollect(events);
      const missing = yield* Effect.result(sau.state({ params: { id: "none" } }));
      assert.ok(Result.isFailure(missing) && "status" in missing.failure && missing.failure.status === 404);
      const unknown = yield* Effect.result((yield* connect(url)).metrics());
      assert.ok(Result.isFailure(unknown));
      return all;
    }));
    assert.deepEqual(found.at(-1)?.status, "result");
  });

  it("a kill in mid-run loses no finished step", { timeout: 120_000 }, async () => {
    const url = await begin();
    const send = (to: string) =>
      fetch(`${to}/run`, {
        method: "POST",
        headers: { "content-type": "application/json", authorization: `Bearer ${TOKEN}`, "idempotency-key": "k" },
        body: JSON.stringify({ inline: pipeline(400, 1) }),
      });
    /** Reads until the second step is under way; the last "done" of the first. */
    const untilPairs = async (response: Response): Promise<unknown> => {
      const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
      let seen = "";
      while (!seen.includes('"name":"pairs","done"')) seen += (await reader.read()).value;
      return JSON.parse(seen.split("\n").find((line) => line.includes('"status":"done"'))!).cached;
    };
    const first = await send(url);
    const reading = untilPairs(first);
    const id = first.headers.get("location")!.slice("/runs/".length);
    await reading.then(() => server!.child.kill("SIGKILL"));
    await server!.ended;
    const again = await begin();
    const sau = await Effect.runPromise(connect(again, { token: TOKEN }));
    const state = await Effect.runPromise(sau.state({ params: { id } }));
    assert.equal(state.lastEvent?.status === "error" && state.lastEvent.tag, "Stopped");
    const second = await send(again);
    assert.notEqual(second.headers.get("location"), first.headers.get("location"));
    assert.deepEqual([await reading, await untilPairs(second)], [false, true]);
  });

  it("drains on SIGTERM and says so by its exit code", { timeout: 60_000 }, async () => {
    server!.child.kill("SIGTERM");
    // Deno's node:child_process tells the code 143 as the signal that it stands for.
    assert.ok([143, null].includes(await server!.ended));
    assert.match(server!.errors(), /Stopped\./);
  });
});
