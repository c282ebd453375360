/**
 * What each network of each model size takes, beside what sau expects before it loads one: a table of resident memory.
 *
 *     SAU_MODULES=… npx -y deno@2.9.6 run -A bench/memory.ts [--side 32] [MODEL.PART ...]
 *
 * Weights are random halves in the shapes of test/golden/configs (mini-SD's are its own), computed with in single precision.
 * Each network is loaded by a process of its own, as sau opens it (text encoder: 16 texts; U-Net: one picture with guidance;
 * VAE decoder: one tile), and runs once. Linux only: the peaks are the kernel's, set back between loading and running.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { Effect } from "effect";
import { openSession } from "../src/diffusion/networks.ts";
import { openPart, type PartName } from "../src/diffusion/part.ts";
import { roomFor } from "../src/diffusion/room.ts";
import { Graph } from "../src/graph/mod.ts";
import { autoencoderKl, parseAutoencoderKlConfig } from "../src/models/autoencoder_kl.ts";
import { clipText, parseClipTextConfig } from "../src/models/clip_text.ts";
import { clipTextProjected, parseProjectedTextConfig } from "../src/models/clip_text.ts";
import { parseUnetConfig, SIZE_NUMBERS, unetCondition } from "../src/models/unet_2d_condition.ts";
import { Runtime } from "../src/runtime/mod.ts";
import { byteText } from "../src/tensor/bytes.ts";
import { zeros } from "../src/tensor/tensor.ts";
import { writeRandom } from "./random_weights.ts";

const path = (name: string) => fileURLToPath(new URL(`../${name}`, import.meta.url));
const configs = path("test/golden/configs");
const ALL = [
  ...["text_encoder", "unet", "vae"].flatMap((part) => ["mini-sd", "sd-1.5", "sd-2.1"].map((m) => `${m}.${part}`)),
  ...["text_encoder", "text_encoder_2", "unet", "vae"].map((part) => `sdxl-1.0.${part}`),
].sort();

const TEXTS = 16;

/** What sau runs of a part. `side`: of the latents, in cells. */
const graphOf = (part: PartName, json: Readonly<Record<string, unknown>>, side: number): Graph => {
  const g = new Graph();
  const weights = g.weights(part);
  const float = (name: string, ...dims: readonly number[]) => g.input(name, "float32", dims);
  const length = Number(json.max_position_embeddings ?? 77);
  if (part === "unet") {
    const config = parseUnetConfig(json);
    const text = json.sample_size === 16 ? 32 : 77; // mini-SD's tokenizer stops at 32
    const added = config.addition && {
      pooled: float("pooled", 2, config.addition.pooled),
      sizes: float("sizes", 1, SIZE_NUMBERS),
    };
    const { noise } = unetCondition(config)(weights, {
      sample: float("sample", 2, config.in_channels, side, side),
      timestep: float("timestep", 1),
      context: float("context", 2, text, config.cross_attention_dim),
      ...(added === undefined ? {} : { added }),
    });
    g.output("noise", noise);
  } else if (part === "vae") {
    const config = parseAutoencoderKlConfig(json);
    g.output("pixels", autoencoderKl(config).decode(weights, float("latents", 1, config.latent_channels, side, side)));
  } else {
    const ids = g.input("ids", "int32", [TEXTS, length]);
    if (part === "text_encoder") g.output("hidden", clipText(parseClipTextConfig(json))(weights, { ids }).hidden);
    else {
      const end = float("end", TEXTS, length);
      const { penultimate, pooled } = clipTextProjected(parseProjectedTextConfig(json))(weights, { ids, end });
      g.output("penultimate", penultimate);
      g.output("pooled", pooled);
    }
  }
  return g;
};

const resident = (which: "VmRSS" | "VmHWM"): number =>
  1024 * Number(new RegExp(`${which}:\\s+(\\d+)`).exec(readFileSync("/proc/self/status", "utf8"))![1]);

/** In a process of its own: loads the part of a folder, runs it once, and prints what it took beyond the bare process. */
const measure = (part: PartName, folder: string, side: number) =>
  Effect.gen(function* () {
    const opened = yield* openPart(part, { path: folder, allowed: [folder] });
    const graph = graphOf(part, opened.config, side);
    const { backend } = yield* Runtime;
    const { loading, estimate: { peak: running } } = roomFor(graph, opened.size, backend);
    const bare = resident("VmRSS");
    writeFileSync("/proc/self/clear_refs", "5");
    const session = yield* openSession(part, graph, { parts: { [part]: opened }, changed: new Map() }, part);
    const [loadingPeak, after] = [resident("VmHWM") - bare, resident("VmRSS") - bare];
    writeFileSync("/proc/self/clear_refs", "5");
    yield* session.run(Object.fromEntries(graph.inputs.map((v) => {
      const zero = v.dtype === "int32"
        ? { dims: v.dims, data: new Int32Array(zeros(v.dims).data.length) }
        : zeros(v.dims);
      return [v.source.kind === "input" ? v.source.name : "", zero];
    })));
    console.log(
      JSON.stringify({ stored: opened.size, loading, running, loadingPeak, after, peak: resident("VmHWM") - bare }),
    );
  });

const [command, ...rest] = process.argv.slice(2);
if (command === "part") {
  const [part, folder, side] = rest;
  const work = measure(part as PartName, folder, Number(side));
  await Effect.runPromise(work.pipe(Effect.scoped, Effect.provide(Runtime.layer("native"))));
  process.exit(0);
}

const args = command === undefined ? [] : [command, ...rest];
const at = args.indexOf("--side");
const side = at < 0 ? 32 : Number(args.splice(at, 2)[1]);
console.log(`| network | stored | while it loads | loaded | one run | counted on |`);
console.log(`| --- | --- | --- | --- | --- | --- |`);
for (const name of args.length === 0 ? ALL : args) {
  const [, model, part] = /^(.*)\.(\w+)$/.exec(name)!;
  const work = mkdtempSync(join(tmpdir(), "sau-memory-"));
  try {
    const mini = path(`examples/mini-sd/base/${part}`);
    const folder = model === "mini-sd" ? mini : work;
    if (model !== "mini-sd") {
      // SDXL's first encoder and its decoder have the shapes of Stable Diffusion 1's.
      const own = join(configs, model, part, "config.json");
      const config: unknown = JSON.parse(
        readFileSync(existsSync(own) ? own : join(configs, "sd-1.5", part, "config.json"), "utf8"),
      );
      writeFileSync(join(work, "config.json"), JSON.stringify(config));
      writeRandom(
        join(work, part.startsWith("text") ? "model.safetensors" : "diffusion_pytorch_model.safetensors"),
        part as PartName,
        config,
      );
    }
    const self = fileURLToPath(import.meta.url);
    const cells = model === "mini-sd" ? 16 : side;
    const { stdout, stderr } = spawnSync(process.execPath, ["run", "-A", self, "part", part, folder, String(cells)], {
      encoding: "utf8",
    });
    const line = stdout.trim().split("\n").at(-1) ?? "";
    if (!line.startsWith("{")) {
      console.log(`| ${name} | not measured: ${stderr.replaceAll(/\s+/g, " ").slice(0, 300)} |`);
      continue;
    }
    const m = JSON.parse(line) as Record<string, number>;
    const columns = [m.stored, m.loadingPeak, m.after, m.peak, Math.max(m.loading, m.running)].map(byteText);
    console.log(`| ${name} | ${columns.join(" | ")} |`);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}
