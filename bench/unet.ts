/**
 * Our side of bench/unet.py: reads requests, one JSON a line, runs each once and answers with the milliseconds it took.
 *
 *     deno run -A bench/unet.ts wasm examples/mini-sd/base
 *
 * {"do":"prepare","file":F} loads the inputs and expected noise of F, opens every session and answers how far from
 * PyTorch each batch is; {"do":"unet","batch":2} is one U-Net evaluation; {"do":"sample"} is a guided sampling run.
 */
import { readFileSync } from "node:fs";
import { Effect, Schema } from "effect";
import type { Bundle } from "../src/diffusion/bundle.ts";
import { openBundle } from "../src/diffusion/bundle_open.ts";
import { evenBatch, float32, inBatches, openSession, rows } from "../src/diffusion/networks.ts";
import { openSampler } from "../src/diffusion/sampler.ts";
import { Graph } from "../src/graph/mod.ts";
import { parseUnetConfig, unetCondition } from "../src/models/unet_2d_condition.ts";
import { Runtime } from "../src/runtime/mod.ts";
import { parseHeader, readTensor } from "../src/tensor/safetensors.ts";
import { concat0, slice0, type Tensor } from "../src/tensor/tensor.ts";
import { answer, serve } from "./worker.ts";

const Request = Schema.Union([
  Schema.Struct({ do: Schema.Literal("unet"), batch: Schema.Int }),
  Schema.Struct({ do: Schema.Literal("sample") }),
]);

const relativeError = (a: Tensor, b: Tensor): number => {
  let [apart, largest] = [0, 0];
  b.data.forEach((want, i) => {
    apart = Math.max(apart, Math.abs(a.data[i] - want));
    largest = Math.max(largest, Math.abs(want));
  });
  return apart / largest;
};

const sampling = Effect.fnUntraced(function* (
  bundle: Bundle,
  read: (key: string) => Tensor,
  { steps, guidance }: Readonly<Record<string, string>>,
) {
  const start = read("start");
  const draw = yield* openSampler(bundle, { pictures: start.dims[0] });
  const texts = { context: read("texts"), uncond: read("uncond") };
  return draw(texts, { start, seed: 0, pictures: start.dims[0] }, { steps: Number(steps), guidance: Number(guidance) });
});

const prepare = Effect.fnUntraced(function* (folder: string, file: string) {
  const bytes = new Uint8Array(readFileSync(file));
  const header = parseHeader(bytes, bytes.length, file);
  const read = (key: string) => readTensor(bytes, header, key);
  const runtime = yield* Runtime;
  const bundle = yield* openBundle(folder);
  const config = parseUnetConfig(bundle.parts.unet.config);
  const batches = header.metadata.batches.split(" ").map(Number);

  const errors: Record<string, number> = {};
  const evaluations = new Map<number, Effect.Effect<void, unknown>>();
  for (const batch of batches) {
    const [sample, timestep, context] = [read(`sample.${batch}`), read("timestep"), read(`context.${batch}`)];
    // As everywhere in sau: cut into as many parts as compute side by side.
    const part = evenBatch(batch, batch, runtime.lanes);
    const g = new Graph();
    const input = (name: string, { dims: [, ...rest] }: Tensor) => g.input(name, "float32", [part, ...rest]);
    const { noise } = unetCondition(config)(g.weights("unet"), {
      sample: input("sample", sample),
      timestep: g.input("timestep", "float32", timestep.dims),
      context: input("context", context),
    });
    g.output("noise", noise);
    const session = yield* openSession(`U-Net, batch ${batch}`, g, bundle, "unet");
    const evaluate = inBatches(session, batch, part, (begin, real) =>
      Effect.gen(function* () {
        const feeds = { sample: rows(sample, begin, part), timestep, context: rows(context, begin, part) };
        return slice0(yield* float32((yield* session.run(feeds)).noise), 0, real);
      })).pipe(Effect.map(concat0));
    errors[`unet ${batch}`] = relativeError(yield* evaluate, read(`noise.${batch}`));
    evaluations.set(batch, Effect.asVoid(evaluate));
  }
  const sample = header.entries.has("start") ? yield* sampling(bundle, read, header.metadata) : undefined;
  if (sample !== undefined) errors.sample = relativeError((yield* sample).latents, read("final"));

  yield* answer({ device: runtime.report, errors });
  return { evaluations, sample };
});

await serve(
  Request,
  prepare,
  (prepared, request) => request.do === "sample" ? prepared.sample : prepared.evaluations.get(request.batch),
);
