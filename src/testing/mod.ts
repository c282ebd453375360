/** "sau/testing": what you need to test a mask, a step or a pipeline of your own. docs/testing.md shows it at work. */
import { Runtime } from "../runtime/runtime.ts";

export { default as fc } from "fast-check";
export * from "./arbitraries.ts";
export {
  captureArbitrary,
  type CaptureOptions,
  type PlantedCapture,
  plantedCaptureArbitrary,
  type Shape,
  shapeArbitrary,
} from "./captures.ts";
export { type Kind, kinds } from "./kinds.ts";
export * from "./laws.ts";
export {
  promptArbitrary,
  type PromptOptions,
  promptsArbitrary,
  type SamplingRun,
  scheduleArbitrary,
  type ScheduleOptions,
} from "./prompts.ts";
export { checkStepLaws, STEP_LAWS, type StepLawOptions } from "./step_laws.ts";
export { tinyBundle, tinyModel, tinyModelArbitrary, type TinyModelOptions, tinyText } from "./tiny_model.ts";

/** The Runtime in plain JavaScript and double precision: the same bytes on every machine, no ONNX Runtime. */
export const referenceRuntime = Runtime.layer("reference");
