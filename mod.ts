/**
 * `sau` finds, removes and proves removed a backdoor in a Stable Diffusion checkpoint.
 *
 * Each step is an Effect to `yield*`; `pipelines/sau.yaml` is the same steps as a file.
 *
 *     import { Effect } from "effect";
 *     import { denoise, encode, locate, Runtime } from "sau";
 *
 *     const where = Effect.gen(function* () {
 *       const { text } = yield* encode.run({}, { model: "my-model", trigger: "\u200b ", prompts: "prompts.txt" });
 *       const { capture } = yield* denoise.run({ text }, {});
 *       return yield* locate.run({ text, capture }, {});
 *     });
 *     const { field } = await Effect.runPromise(where.pipe(Effect.provide(Runtime.layer("auto"))));
 *     console.log(field.shape.shape);
 */

// The very effect that runs the steps, so that a step outside this project needs one import.
export { Effect, Schema } from "effect";

// The six steps, and what a step is.
export { encode } from "./src/steps/encode.ts";
export { denoise } from "./src/steps/denoise.ts";
export { locate } from "./src/steps/locate.ts";
export { mask } from "./src/steps/mask.ts";
export { unlearn } from "./src/steps/unlearn.ts";
export { verify } from "./src/steps/verify.ts";
// For testing defences: steps that make backdoors.
export { poisonBadT2I } from "./src/steps/poison_badt2i.ts";
export { poisonEvilEdit } from "./src/steps/poison_eviledit.ts";
export { poisonRickrolling } from "./src/steps/poison_rickrolling.ts";
export { poisonVillan } from "./src/steps/poison_villan.ts";
export { builtinSteps } from "./src/steps/registry.ts";
export { type AnyStep, Step, type StepDefinition } from "./src/steps/step.ts";
export { type OptionalPort, Port, type Stored } from "./src/steps/port.ts";
export * from "./src/steps/ports.ts";
export { type Capture, CLEAN, FIRST_TWIN, TRIGGERED } from "./src/steps/capture.ts";
export { Progress, type ProgressListener, type ProgressReport, report } from "./src/steps/progress.ts";
export { PathString } from "./src/steps/path_string.ts";
export { defaulted, Fraction, Seed } from "./src/steps/settings.ts";
export { explain, type Figure, OutputError, SpecError, StepError, VerifyFailed } from "./src/steps/errors.ts";

// Pipelines.
export { loadFile, loadSpec, loadText } from "./src/pipeline/load.ts";
export { Output, pipeline } from "./src/pipeline/builder.ts";
export { Condition, each, Given, sweep } from "./src/pipeline/given.ts";
export { plan } from "./src/pipeline/plan.ts";
export { run, type RunResult } from "./src/pipeline/run.ts";

// Pipelines behind HTTP.
export { createHandler, type Handler, type HandlerOptions } from "./src/serve/handler.ts";
export { DEFAULT_LIMITS, type Limits } from "./src/serve/limits.ts";
export { connect, type SauClient } from "./src/serve/client.ts";

// Models, and where they run.
export { type Bundle, withChanges } from "./src/diffusion/bundle.ts";
export { openBundle, type OpenOptions, type Replacement } from "./src/diffusion/bundle_open.ts";
export { stockTokenizer } from "./src/diffusion/stock_tokenizer.ts";
export { readWeights } from "./src/diffusion/weights.ts";
export { saveBundle } from "./src/diffusion/save.ts";
export { BundleError, TriggerError } from "./src/diffusion/errors.ts";
export { inspect, type InspectOptions } from "./src/diffusion/inspect.ts";
export { Inspection } from "./src/diffusion/inspection.ts";
export { renderInspection } from "./src/report/inspection.ts";
export { openSampler, type SampleOptions } from "./src/diffusion/sampler.ts";
export { type PictureNoise, pictureNoise } from "./src/diffusion/picture_noise.ts";
export { type SchedulerName, schedulerNames } from "./src/diffusion/schedules/choose.ts";
export { openEvaluator } from "./src/diffusion/evaluator.ts";
export { openDecoder } from "./src/diffusion/pictures.ts";
export { openTextEncoder } from "./src/diffusion/text.ts";
export { openScorer } from "./src/diffusion/scorer.ts";
export { openScoringModel } from "./src/diffusion/scoring.ts";
export {
  type AdapterReport,
  Device,
  diagnose,
  formatReport,
  openTrainer,
  Runtime,
  RuntimeError,
  RuntimeUnavailable,
  type Session,
  type StepResult,
  type Trainer,
} from "./src/runtime/mod.ts";

// Networks as graphs: operations, gradients, optimisers, the training step that openTrainer runs, the ONNX writer.
export * as graph from "./src/graph/mod.ts";

// Pure parts: tensors and their files, the mask algebra, metrics.
export { type Tensor, tensor, zeros } from "./src/tensor/tensor.ts";
export { parseHeader, readTensor, write as writeTensors } from "./src/tensor/safetensors.ts";
export { combine, complement, intersection, scale, union } from "./src/mask/algebra.ts";
export { blend } from "./src/mask/blend.ts";
export { gaussianBlur } from "./src/mask/blur.ts";
export { sigmoidEdge } from "./src/mask/edge.ts";
export { resize } from "./src/mask/resize.ts";
export { type Shape, shapeOf } from "./src/mask/shape.ts";
export { softMask } from "./src/mask/soft_mask.ts";
export { aboveThreshold, otsu, type Threshold } from "./src/mask/threshold.ts";
