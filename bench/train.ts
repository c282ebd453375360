/**
 * Our side of bench/train.py: reads requests, one JSON a line, runs each once and answers with the milliseconds it took.
 *
 * {"do":"prepare","file":F} loads the data of F, makes some steps from the model's own weights and answers their losses;
 * {"do":"step"} is one more step, {"do":"forward"} its loss alone, {"do":"backward"} loss and gradients without optimiser.
 */
import { readFileSync } from "node:fs";
import { Effect, Schema } from "effect";
import { readWeights } from "../src/diffusion/bundle.ts";
import { openBundle } from "../src/diffusion/bundle_open.ts";
import { noiseDistillation, weightedSquares } from "../src/diffusion/distillation.ts";
import { networkKeys, openSession } from "../src/diffusion/networks.ts";
import { openPartTrainer } from "../src/diffusion/train.ts";
import { globalNorm, gradient, Graph, showMemory, weightInput } from "../src/graph/mod.ts";
import { parseUnetConfig, unetCondition } from "../src/models/unet_2d_condition.ts";
import { Runtime } from "../src/runtime/mod.ts";
import { parseHeader, readTensor } from "../src/tensor/safetensors.ts";
import { isTextWeight } from "../src/unlearn/closed_form.ts";
import { answer, serve } from "./worker.ts";

const Request = Schema.Struct({ do: Schema.Literals(["step", "forward", "backward"]) });

const prepare = Effect.fnUntraced(function* (folder: string, file: string) {
  const bytes = new Uint8Array(readFileSync(file));
  const header = parseHeader(bytes, bytes.length, file);
  const data = Object.fromEntries(
    ["latents", "timestep", "context", "wanted", "weight"].map((key) => [key, readTensor(bytes, header, key)]),
  );
  const { metadata } = header;
  const bundle = yield* openBundle(folder);
  const config = parseUnetConfig(bundle.parts.unet.config);
  const [batch, , height, width] = data.latents.dims;
  const trained = metadata.trained === "all" ? () => true : isTextWeight;
  const options = { batch, length: data.context.dims[1], trained, clipNorm: 1 };

  const trainer = yield* openPartTrainer("U-Net", noiseDistillation(config, [height, width], options), bundle, "unet");
  const step = trainer.step(Number(metadata.rate), data);
  const losses: number[] = [];
  for (let i = 0; i < Number(metadata.steps); i++) losses.push((yield* step).loss);

  /** The same loss without an optimiser; with `backward`, the norm of its gradients as well. */
  const part = Effect.fnUntraced(function* (backward: boolean) {
    const g = new Graph({ weightsAsInputs: (_, key) => backward && trained(key) });
    const input = (name: string) => g.input(name, "float32", data[name].dims);
    const { noise } = unetCondition(config)(g.weights("unet"), {
      sample: input("latents"),
      timestep: input("timestep"),
      context: input("context"),
    });
    const loss = weightedSquares(noise, input("wanted"), input("weight"));
    g.output("loss", loss);
    const keys = backward ? [...(yield* networkKeys(bundle.parts.unet)).keys()].filter(trained) : [];
    if (backward) g.output("norm", globalNorm(gradient(g, loss, g.weightInputs())));
    const weights = yield* readWeights(bundle, "unet", keys);
    const runtime = yield* Runtime;
    const feeds = { ...data, ...Object.fromEntries(keys.map((key, i) => [weightInput("unet", key), weights[i]])) };
    // Held on the device, as a trainer holds them.
    const held = Object.fromEntries(
      yield* Effect.forEach(
        Object.entries(feeds),
        ([name, value]) => Effect.map(runtime.upload(value), (tensor) => [name, tensor] as const),
      ),
    );
    const session = yield* openSession(backward ? "backward" : "forward", g, bundle, "unet");
    const run = Effect.asVoid(session.run(held));
    yield* run;
    return run;
  });
  const forward = yield* part(false);
  const backward = yield* part(true);
  yield* answer({ losses, memory: showMemory(trainer.memory) });
  return { step: Effect.asVoid(step), forward, backward };
});

await serve(Request, prepare, (prepared, request) => prepared[request.do]);
