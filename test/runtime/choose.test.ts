/** Which device is taken, which is refused, and what is said about it. The candidates are fakes over wasm. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Effect, Result } from "effect";
import { type Device, diagnose, Runtime } from "../../src/runtime/mod.ts";
import type { Candidate } from "../../src/runtime/mod.ts";
import type { ChooseOptions } from "../../src/runtime/choose.ts";
import { isSoftware } from "../../src/runtime/webgpu.ts";
import { absent, changed, type Log, scaled } from "../support/fake_engine.ts";

/** Builds the layer, and tells which device it took, what it opened and closed, and what became of each candidate. */
const take = async (device: Device, backends: (log: Log) => ChooseOptions["backends"], more: ChooseOptions = {}) => {
  const log: Log = { opened: [], closed: [] };
  const result = await Effect.runPromise(
    Effect.service(Runtime).pipe(
      Effect.map((runtime) => ({ report: runtime.report, closed: [...log.closed] })),
      Effect.provide(Runtime.layer(device, { ...more, backends: backends(log) })),
      Effect.result,
    ),
  );
  const { report, closed } = Result.isSuccess(result)
    ? result.success
    : { report: result.failure.report, closed: log.closed };
  const failure = Result.isFailure(result) ? result.failure.message : undefined;
  const status = report.candidates.map((c) => `${c.backend} ${c.status}`);
  return { log, closedWhileInUse: closed, report, failure, status, chosen: report.chosen };
};

const only = (candidates: readonly Candidate[], backend: string): Candidate =>
  candidates.find((c) => c.backend === backend)!;

describe("auto", () => {
  it("takes a hardware GPU before everything, and does not try the rest", async () => {
    const t = await take("auto", (log) => [changed("webgpu", log), changed("native", log), changed("wasm", log)]);
    assert.deepEqual(t.status, ["webgpu chosen", "native untried", "wasm untried"]);
    assert.deepEqual(t.log.opened, ["webgpu"]);
  });

  it("takes native code where there is no GPU, and wasm where there is neither", async () => {
    const withNative = await take("auto", (log) => [absent("webgpu"), changed("native", log), changed("wasm", log)]);
    assert.deepEqual(withNative.status, ["webgpu absent", "native chosen", "wasm untried"]);
    const without = await take("auto", (log) => [absent("webgpu"), absent("native"), changed("wasm", log)]);
    assert.deepEqual(without.status, ["webgpu absent", "native absent", "wasm chosen"]);
    assert.deepEqual(only(without.report.candidates, "native").advice, ["install native"]);
  });

  it("passes over a software adapter without opening it, and says how to ask for it", async () => {
    const t = await take(
      "auto",
      (log) => [changed("webgpu", log, undefined, { software: true }), changed("wasm", log)],
    );
    assert.deepEqual(t.status, ["webgpu refused", "wasm chosen"]);
    assert.deepEqual(t.log.opened, ["wasm"]);
    assert.match(only(t.report.candidates, "webgpu").advice.join(), /webgpu-software/);
  });
});

describe("a device that was asked for", () => {
  it("webgpu-software takes a software adapter, webgpu refuses it", async () => {
    const software = (log: Log) => [changed("webgpu", log, undefined, { software: true }), changed("wasm", log)];
    assert.equal((await take("webgpu-software", software)).chosen, "webgpu");
    const t = await take("webgpu", software);
    assert.deepEqual(t.status, ["webgpu refused", "wasm untried"]);
    assert.equal(t.chosen, null);
  });

  it("nothing else stands in for it: the error carries the report, and says it in words", async () => {
    const t = await take("native", (log) => [absent("webgpu"), absent("native"), changed("wasm", log)]);
    assert.equal(t.chosen, null);
    assert.deepEqual(t.status, ["webgpu untried", "native absent", "wasm untried"]);
    assert.match(t.failure ?? "", /asked for: native[^]*no native here[^]*install native/);
  });
});

describe("a device is not trusted", () => {
  const lies: Readonly<Record<string, (log: Log) => ReturnType<typeof changed>>> = {
    "that answers zeros": (log) => changed("webgpu", log, scaled(0)),
    "that is off by one percent": (log) => changed("webgpu", log, scaled(1.01)),
    "that answers NaN": (log) => changed("webgpu", log, scaled(NaN)),
    "whose answers are too short": (log) =>
      changed("webgpu", log, ({ dims, data }) => ({ dims, data: data.subarray(1) })),
    "that fails": (log) => changed("webgpu", log, () => Promise.reject(new Error("device lost\nat somewhere"))),
  };
  for (const [name, backend] of Object.entries(lies)) {
    it(`${name}: it is refused after the self-check, closed, and the next one is taken`, async () => {
      const t = await take("auto", (log) => [backend(log), changed("wasm", log)]);
      assert.deepEqual(t.status, ["webgpu refused", "wasm chosen"]);
      assert.deepEqual(t.closedWhileInUse, ["webgpu"]);
      const { check, why } = only(t.report.candidates, "webgpu");
      assert.equal(check.result, "failed");
      assert.match(why, name === "that fails" ? /^its self-check failed: device lost$/ : /^it computes wrongly/);
    });
  }

  it("that hangs: patience ends, and the next one is taken", async () => {
    const hangs = (log: Log) => changed("webgpu", log, () => new Promise<never>(() => undefined));
    const t = await take("auto", (log) => [hangs(log), changed("wasm", log)], { patience: "3 seconds" });
    assert.deepEqual(t.status, ["webgpu refused", "wasm chosen"]);
    assert.match(only(t.report.candidates, "webgpu").why, /did not finish in 3 s/);
  });

  it("that is known to compute nothing: it is not even opened", async () => {
    const t = await take(
      "auto",
      (log) => [changed("webgpu", log, undefined, { refuse: "a null adapter" }), changed("wasm", log)],
    );
    assert.deepEqual(t.log.opened, ["wasm"]);
    assert.match(only(t.report.candidates, "webgpu").why, /null adapter/);
  });
});

describe("what is opened", () => {
  it("the chosen device is closed when the layer's scope ends, not before", async () => {
    const t = await take("wasm", (log) => [changed("wasm", log)]);
    assert.deepEqual([t.closedWhileInUse, t.log.closed], [[], ["wasm"]]);
  });

  it("diagnose looks at every candidate, chooses as the layer would, and leaves nothing open", async () => {
    const log: Log = { opened: [], closed: [] };
    const backends = [changed("webgpu", log, scaled(0)), changed("native", log), changed("wasm", log)];
    const report = await Effect.runPromise(diagnose("auto", { backends }));
    assert.deepEqual(report.candidates.map((c) => c.status), ["refused", "chosen", "usable"]);
    assert.deepEqual(log.opened.sort(), log.closed.sort());
  });
});

describe("software adapters", () => {
  const named = (description: string, isFallbackAdapter = false) =>
    isSoftware({ vendor: "", architecture: "", device: "", description, isFallbackAdapter });
  it("are known by what the adapter says of itself, or by name", () => {
    assert.ok(named("", true));
    for (
      const name of ["llvmpipe (LLVM 15.0.6, 256 bits)", "SwiftShader driver 5.0.0", "Microsoft Basic Render Driver"]
    ) {
      assert.ok(named(name), name);
    }
    for (const name of ["NVIDIA GeForce RTX 4090", "Apple M3", "AMD Radeon 780M (RADV PHOENIX)", "Intel(R) Arc(tm)"]) {
      assert.ok(!named(name), name);
    }
  });
});
