/** The report in words. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Effect, Schema } from "effect";
import { AdapterReport, type Candidate, diagnose, formatReport } from "../../src/runtime/mod.ts";
import { driverAdvice } from "../../src/runtime/webgpu.ts";

const candidate = (more: Partial<Candidate>): Candidate => ({
  backend: "wasm",
  status: "chosen",
  vendor: "",
  architecture: "",
  description: "",
  software: false,
  check: { result: "not run", milliseconds: null, error: null },
  why: "",
  advice: [],
  threads: null,
  limits: null,
  version: "",
  ...more,
});

const host = {
  runtime: "Deno 2.9.6",
  platform: "linux x64",
  cpu: "A Processor",
  cores: 8,
  memory: { total: 2 ** 34, free: 2 ** 33 },
};

describe("the doctor's text", () => {
  it("names what was chosen and why, what was refused and why, and what to do", () => {
    const text = formatReport({
      requested: "auto",
      chosen: "wasm",
      precision: { requested: "auto", chosen: "float32", why: "no halves", error: null },
      host,
      candidates: [
        candidate({
          backend: "webgpu",
          status: "refused",
          vendor: "mesa",
          description: "llvmpipe",
          why: "emulated on the CPU",
          advice: ["Install a driver"],
          limits: { maxBufferSize: 2 ** 31, maxStorageBufferBindingSize: 2 ** 27 },
        }),
        candidate({ backend: "native", status: "absent", why: "onnxruntime-node is not installed" }),
        candidate({
          why: "no trusted GPU",
          threads: 8,
          version: "onnxruntime-web 1.30.0",
          check: { result: "passed", milliseconds: 12.3, error: 3e-6 },
        }),
      ],
    });
    assert.equal(
      text,
      [
        "Device    wasm, 8 threads (asked for: auto)",
        "Machine   A Processor, 8 cores, 16.0 GiB memory (8.0 GiB free), linux x64",
        "Precision float32 (asked for: auto): no halves",
        "Runtime   Deno 2.9.6",
        "",
        "webgpu    refused: emulated on the CPU",
        "            is         mesa · llvmpipe",
        "            limits     buffer 2048 MiB, storage binding 128 MiB",
        "            try        Install a driver",
        "native    not found: onnxruntime-node is not installed",
        "wasm      chosen: no trusted GPU",
        "            through    onnxruntime-web 1.30.0, 8 threads",
        "            self-check passed in 12 ms, largest error 3.0e-6",
      ].join("\n"),
    );
  });

  it("says when nothing computes", () => {
    const text = formatReport({
      requested: "native",
      chosen: null,
      precision: { requested: "auto", chosen: null, why: "no device", error: null },
      host,
      candidates: [candidate({ status: "absent" })],
    });
    assert.match(text, /^Device {4}none \(asked for: native\)/);
  });
});

describe("a report", () => {
  it("of this machine is plain data: JSON and back changes nothing, and wasm works", { timeout: 200_000 }, async () => {
    const report = await Effect.runPromise(diagnose("wasm"));
    const back = Schema.decodeUnknownSync(AdapterReport)(JSON.parse(JSON.stringify(report)));
    assert.deepEqual(back, report);
    assert.equal(report.chosen, "wasm");
    assert.match(report.host.runtime, /^(Deno|Bun|Node) \d/);
    assert.match(formatReport(report), /onnxruntime-web \d+\.\d+/);
  });
});

describe("advice where no adapter is found", () => {
  it("a container with NVIDIA's GPU but without its graphics driver is recognised", () => {
    assert.match(
      driverAdvice({ NVIDIA_VISIBLE_DEVICES: "all" })[0],
      /NVIDIA_DRIVER_CAPABILITIES=compute,utility,graphics/,
    );
    assert.match(driverAdvice({ NVIDIA_DRIVER_CAPABILITIES: "compute,utility" })[0], /looks like a container/);
  });
  it("and not where the driver was asked for", () => {
    const advice = driverAdvice({ NVIDIA_VISIBLE_DEVICES: "all", NVIDIA_DRIVER_CAPABILITIES: "all" }).join();
    assert.doesNotMatch(advice, /looks like a container/);
  });
});
