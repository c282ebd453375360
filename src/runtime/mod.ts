export type { BackendName, HostTensor, ModelBytes, PortType } from "./engine.ts";
export {
  AdapterReport,
  type Candidate,
  Device,
  NotFinite,
  Precision,
  RuntimeError,
  RuntimeUnavailable,
} from "./report.ts";
export {
  type DeviceTensor,
  isDevice,
  type RunOptions,
  type Session,
  type Sessions,
  toHost,
  type Usage,
} from "./session.ts";
export { diagnose, Runtime } from "./runtime.ts";
export { formatReport, noHalves } from "./doctor.ts";
export { openTrainer, type StepResult, type Trainer } from "./training.ts";
