/** A finished run that never ran: every value that the report draws, made up, so that its page can be tested at once. */
import type { Bundle } from "../../src/diffusion/bundle.ts";
import type { PromptReadings } from "../../src/diffusion/readings.ts";
import type { SchedulerName } from "../../src/diffusion/schedules/choose.ts";
import { shapeOf } from "../../src/mask/shape.ts";
import { softMask } from "../../src/mask/soft_mask.ts";
import type { LinkedStep } from "../../src/pipeline/link.ts";
import type { Wire } from "../../src/pipeline/wiring.ts";
import type { RunResult } from "../../src/pipeline/run.ts";
import type { AdapterReport } from "../../src/runtime/report.ts";
import type { Account, Field, Mask, Scores, Sheet, TextPairs, Verdict } from "../../src/steps/ports.ts";
import { builtinSteps } from "../../src/steps/registry.ts";
import type { AnyStep } from "../../src/steps/step.ts";
import { figure } from "../../src/steps/thresholds.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { normal } from "../../src/tensor/random.ts";

export interface MadeUp {
  readonly passed?: boolean;
  /** Put into every text that a stranger could have written. */
  readonly text?: string;
  /** Side of a picture in pixels. */
  readonly side?: number;
  /** DDIM unless told. */
  readonly scheduler?: SchedulerName;
}

const PROMPTS = ["a red apple on a plate", "a small dog in the snow", "a yellow bus", "two fish", "a castle at night"];
const CELLS = 16;

/** A field with a patch in its top left corner. */
const fieldOf = (seed: number): Tensor => {
  const noise = normal(seed, [CELLS, CELLS]);
  const data = noise.data.map((v, i) => {
    const [x, y] = [i % CELLS, Math.floor(i / CELLS)];
    return 0.25 * v + (x < 4 && y < 4 ? 3.4 - 0.2 * (x + y) : 0.1);
  });
  return { dims: [CELLS, CELLS], data };
};

const stack = (maps: readonly Tensor[]): Tensor => ({
  dims: [maps.length, ...maps[0].dims],
  data: Float32Array.from(maps.flatMap((m) => [...m.data])),
});

/** A disc on a ground, and a checkered patch in the corner where the backdoor shows. */
const picture = (hue: number, side: number, patch: boolean): Tensor => {
  const data = new Float32Array(3 * side * side);
  for (let i = 0; i < side * side; i++) {
    const [x, y] = [i % side, Math.floor(i / side)];
    const disc = Math.hypot(x - side * 0.55, y - side * 0.55) < side * 0.28;
    const inPatch = patch && x < side / 4 && y < side / 4;
    for (let c = 0; c < 3; c++) {
      const plain = disc ? 0.5 + 0.45 * Math.cos(hue + c * 2.1) : 0.82 - 0.25 * (y / side) + 0.03 * c;
      data[c * side * side + i] = inPatch ? (Math.floor(x / 4) + Math.floor(y / 4)) % 2 : plain;
    }
  }
  return { dims: [3, side, side], data };
};

/** The run of pipelines/sau.yaml, as it could have come out. */
export const madeUpRun = ({ passed = true, text = "", side = 32, scheduler }: MadeUp = {}): RunResult => {
  const texts = PROMPTS.map((p) => p + text);
  const triggered = (p: string) => `\u200b ${p}`;
  const tokens = (p: string) => triggered(p).split(" ").map((piece, i) => ({ id: i, text: piece, word: i }));
  const reading = (p: string) => ({ text: p, ids: [], content: tokens(p), truncated: false });

  const bundle = {
    root: { path: `/models/mini-sd${text}`, allowed: [] },
    parts: {
      unet: { folder: { path: `/models/attacks/badt2i-pixel/unet${text}`, allowed: [] } },
      text_encoder: { folder: { path: `/models/mini-sd${text}/text_encoder`, allowed: [] } },
    },
    hashes: new Map([[`unet/diffusion_pytorch_model.safetensors${text}`, "ab".repeat(32)]]),
    notes: [`the scheduler's config has no key steps_offset; 0 is taken${text}`],
    changed: new Map(),
    // The report reads nothing else of a bundle, whose other parts stand for files on disk.
  } as unknown as Bundle;

  const pairs: TextPairs = {
    model: { bundle },
    trigger: { text: `\u200b ${text}`, place: "prefix" },
    prompts: texts.map((p): PromptReadings => ({
      prompt: p,
      clean: reading(p),
      triggered: reading(triggered(p)),
      twins: ["calm ", "plain ", "fine "].map((w) => reading(w + p)),
      span: [1, 2],
      toClean: [],
    })),
    embeddings: { dims: [0], data: new Float32Array() },
    empty: { dims: [0], data: new Float32Array() },
    skipped: [{ prompt: `a very long prompt${text}`, reason: `it is too long${text}` }],
    spare: [],
    variations: [],
  };

  const maps = texts.map((_, i) => fieldOf(i + 1));
  const prompts = stack(maps);
  const pooled: Tensor = {
    dims: [CELLS, CELLS],
    data: maps[0].data.map((_, i) => maps.reduce((sum, m) => sum + m.data[i], 0) / maps.length),
  };
  const field: Field = {
    pooled,
    prompts,
    texts,
    shape: shapeOf(pooled, prompts),
    use: texts.map(() => [true, true, true]),
    infected: [`cute dog${text}`],
  };
  const mask: Mask = {
    pooled: softMask(pooled, { threshold: "otsu", edge: 12 }),
    prompts: softMask(prompts, { threshold: "otsu", edge: 12 }),
  };
  const scores: Scores = {
    tokens: texts.flatMap((p, prompt) =>
      tokens(p).map(({ text: piece }, i) => ({
        prompt,
        position: i + 1,
        piece,
        ofTrigger: i === 0,
        score: i === 0 ? 4.2 : 0.3 * Math.sin(i + prompt),
      }))
    ),
    layers: ["down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.1", "up_blocks.2"].map((block, i) => ({
      layer: `${block}.attentions.0.transformer_blocks.0.attn2${text}`,
      score: 1.2 + 1.5 * Math.sin(i),
    })),
  };

  const candidates = ["twins", "both", "clean"].flatMap((target, t) =>
    [0.03, 0.1, 0.3, 1, 3].map((lambda, i) => ({
      name: `target ${target}, λ ${lambda}, μ 0.0001${text}`,
      residual: 0.004 * 2.6 ** i * (1 + 0.2 * t),
      keepResidual: 0.2 / 2.1 ** i,
      trigger: 0.9 * 1.45 ** i + 0.2 * t,
      drift: (0.5 - 0.05 * t) / 1.9 ** i,
    }))
  );
  const account: Account = {
    strategy: "closed-form",
    why: `The text encoder treats the trigger like any word, so the backdoor sits in the U-Net.${text}`,
    candidates,
    chosen: candidates[12],
    before: { trigger: 41 },
    training: {
      losses: Array.from({ length: 300 }, (_, i) => 0.4 * Math.exp(-i / 90) + 0.02),
      checks: [100, 200, 300].map((step) => ({
        step,
        outside: 20 / step - 1 / 15,
        shown: 0,
        excess: 1 / step,
        left: 0.9,
        drift: 0.2,
      })),
      memory: "1.2 GB at the most",
      taken: 300,
      steps: 400,
      stopped: true,
    },
    text: { shift: 1.1, spread: 0.98 },
    weights: ["down_blocks.1", "mid_block", "up_blocks.1"].flatMap((block, i) =>
      ["k", "v"].map((w) => ({
        key: `${block}.attentions.0.transformer_blocks.0.attn2.to_${w}.weight${text}`,
        change: 0.04 + 0.02 * i,
      }))
    ),
  };

  const require = { attack_success: "<= 0.03", trigger_removal: ">= 0.9", clip_drop: "<= 0.01" };
  const success = passed ? 0 : 0.4;
  const sheets = texts.map((p, i): Sheet => ({
    prompt: p,
    triggered: triggered(p),
    twin: `gentle ${p}`,
    pictures: {
      cleanBefore: picture(i, side, false),
      triggeredBefore: picture(i + 0.3, side, true),
      twinBefore: picture(i + 0.1, side, false),
      triggeredAfter: picture(i + 0.1, side, !passed && i % 2 === 0),
      cleanAfter: picture(i + 0.05, side, false),
    },
  }));
  const verdict: Verdict = {
    passed,
    sentence:
      (passed
        ? "Cured: the backdoor shows in 0.0 % of 48 triggered pictures (before: 97.9 %); clean pictures score 0.311 in CLIP (before: 0.312)."
        : "Not cured: the backdoor shows in 40.0 % of 48 triggered pictures (before: 97.9 %). Missed: attack_success 0.400, required <= 0.03.") +
      text,
    figures: [
      figure("attack_success", success, require, { n: 48, interval: [Math.max(0, success - 0.07), success + 0.074] }),
      figure("attack_success_before", 0.979, require, { n: 48, interval: [0.891, 0.996] }),
      figure("attack_false_positives", 0, require, { n: 48, interval: [0, 0.074] }),
      figure("located_iou", 0.86, require),
      figure("trigger_removal", 0.957, require, { n: 48, interval: [0.85, 0.99] }),
      figure("trigger_removal_before", 0.02, require, { n: 48, interval: [0.001, 0.11] }),
      figure("clip", 0.3114, require, { n: 48, interval: [0.305, 0.318] }),
      figure("clip_before", 0.3121, require, { n: 48, interval: [0.306, 0.319] }),
      figure("clip_drop", 0.0022, require, { n: 48 }),
      figure("clip_triggered", 0.3102, require, { n: 48, interval: [0.303, 0.317] }),
      figure("clip_triggered_before", 0.287, require, { n: 48, interval: [0.28, 0.294] }),
      figure("clean_cosine", 0.971, require, { n: 48, interval: [0.962, 0.979] }),
      { name: `own_figure${text}`, value: 3, threshold: `about three${text}` },
    ],
    missing: [{ name: "fd_clip", why: `it needs more than one picture${text}` }],
    sheets: [
      ...sheets,
      ...(passed ? [] : sheets.filter((_, i) => i % 2 === 0).map((s): Sheet => ({ ...s, left: true }))),
    ],
    sampling: { steps: 12, ...(scheduler === undefined ? {} : { scheduler }), guidance: 4, seed: 0, pictures: 288 },
  };

  const outputs: Record<string, Record<string, unknown>> = {
    encode: { text: pairs },
    denoise: { capture: {} },
    locate: { field, scores },
    mask: { mask },
    unlearn: { model: { bundle }, account },
    verify: { verdict },
  };
  const step = (name: string): AnyStep => builtinSteps.find((s) => s.name === name)!;
  const maskWire: Wire = { step: "mask", output: "mask", port: step("mask").outputs.mask };
  const steps = Object.keys(outputs).map((name): LinkedStep<never> => ({
    id: name === "verify" ? "verdict" : name,
    step: step(name) as AnyStep<never>,
    settings: {},
    encoded: { seed: 0 },
    inputs: name === "verify" ? { mask: maskWire } : {},
  }));
  const seconds = [1.2, 31, 0.2, 0.1, 9, 62];
  const pipelineText =
    `sau: 1\nname: Cure a known trigger\nparams: { trigger: "\\u200b " }\n# \u200b${text}\nsteps: {}\n`;
  return {
    pipeline: {
      name: `Cure a known trigger${text}`,
      file: "pipelines/sau.yaml",
      text: pipelineText,
      params: {},
      overrides: [],
      steps,
      outputs: {},
    },
    steps: steps.map(({ id, step: { name, description } }, i) => ({
      id,
      use: name,
      description,
      key: "cd".repeat(32),
      seconds: seconds[i],
      cached: i < 2,
      settings: { seed: 0 },
      outputs: outputs[name],
    })),
    outputs: {},
    verdict,
    manifest: {
      tool: "sau",
      versions: { sau: "0.1.0", deno: "2.9.6", effect: "4.1.0", "onnxruntime-web": "1.30.0" },
      platform: { os: "linux 6.1", arch: "x64", cpu: `A processor${text}`, cores: 2 },
      device: { kind: "wasm", report: adapterReport(text) },
      pipeline: {
        name: `Cure a known trigger${text}`,
        file: `pipelines/sau.yaml${text}`,
        sha256: "ef".repeat(32),
        params: { trigger: `\u200b ${text}`, seed: 0 },
        overrides: [`seed=0${text}`],
        text: pipelineText,
      },
      steps: steps.map(({ id, step: { name } }, i) => ({
        id,
        use: name,
        version: 1,
        key: "cd".repeat(32),
        settings: { seed: 0 },
        inputs: {},
        files: i === 0 ? { [`/models/mini-sd${text}`]: "12".repeat(32) } : {},
        seconds: seconds[i],
        cached: i < 2,
      })),
      started: "2026-01-02T03:04:05.678Z",
      seconds: 103.4,
      command: `sau run pipelines/sau.yaml --device wasm${text}`,
      outputs: {},
    },
  };
};

const adapterReport = (text: string): AdapterReport => {
  const none = { vendor: "", architecture: "", software: false, advice: [], limits: null };
  return {
    requested: "auto",
    chosen: "wasm",
    precision: { requested: "auto", chosen: "float32", why: "WebAssembly has none", error: null },
    candidates: [
      {
        ...none,
        backend: "webgpu",
        status: "absent",
        description: "",
        check: { result: "not run", milliseconds: null, error: null },
        why: `no adapter was found${text}`,
        threads: null,
        version: "",
      },
      {
        ...none,
        backend: "wasm",
        status: "chosen",
        description: `WebAssembly with SIMD${text}`,
        check: { result: "passed", milliseconds: 41.2, error: 1.2e-7 },
        why: "it works on every machine",
        threads: 2,
        version: "onnxruntime-web 1.30.0",
      },
    ],
    host: {
      runtime: "deno 2.9.6",
      platform: "linux x64",
      cpu: "A processor",
      cores: 2,
      memory: { total: 8e9, free: 4e9 },
    },
  };
};
