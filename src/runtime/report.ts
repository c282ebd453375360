/** What was found on this machine, what was chosen and why: plain data, for the manifest, for errors and for `sau doctor`. */
import { Schema } from "effect";

/**
 * A device by name. `auto` takes a hardware GPU, else native, else wasm; `webgpu-software` also takes a GPU that is
 * emulated; `reference` is plain JavaScript in double precision, for tests.
 */
export const Device = Schema.Literals(["auto", "webgpu", "webgpu-software", "wasm", "native", "reference"]);
export type Device = typeof Device.Type;

export const Backend = Schema.Literals(["webgpu", "native", "wasm", "reference"]);

export const Candidate = Schema.Struct({
  backend: Backend,
  /** `chosen`; `usable`: it works but another came first; `refused`: it is there and was not trusted; `absent`; `untried`. */
  status: Schema.Literals(["chosen", "usable", "refused", "absent", "untried"]),
  vendor: Schema.String,
  architecture: Schema.String,
  description: Schema.String,
  /** Emulated on the CPU. */
  software: Schema.Boolean,
  /** The small computation that must come out right. */
  check: Schema.Struct({
    result: Schema.Literals(["passed", "failed", "not run"]),
    /** Time from loading the check's model to its second result. */
    milliseconds: Schema.NullOr(Schema.Number),
    /** Largest error relative to the largest expected value. */
    error: Schema.NullOr(Schema.Number),
  }),
  why: Schema.String,
  /** What the user can do about it. */
  advice: Schema.Array(Schema.String),
  threads: Schema.NullOr(Schema.Number),
  /** In bytes. */
  limits: Schema.NullOr(Schema.Struct({
    maxBufferSize: Schema.Number,
    maxStorageBufferBindingSize: Schema.Number,
  })),
  /** Package and version that computes. */
  version: Schema.String,
});
export type Candidate = typeof Candidate.Type;

export const Host = Schema.Struct({
  runtime: Schema.String,
  platform: Schema.String,
  cpu: Schema.String,
  cores: Schema.Number,
  /** In bytes. */
  memory: Schema.Struct({ total: Schema.Number, free: Schema.Number }),
});
export type Host = typeof Host.Type;

/** `auto` computes in half precision what is stored in it and only drawn, where the device passes a check of its halves. */
export const Precision = Schema.Literals(["auto", "float32", "float16"]);
export type Precision = typeof Precision.Type;

export const PrecisionReport = Schema.Struct({
  requested: Precision,
  /** Null: half precision was asked for and is not to be had; or no device was chosen. */
  chosen: Schema.NullOr(Schema.Literals(["float32", "float16"])),
  why: Schema.String,
  /** How far half precision was from single precision in the check, relative to the largest value. */
  error: Schema.NullOr(Schema.Number),
});
export type PrecisionReport = typeof PrecisionReport.Type;

export const AdapterReport = Schema.Struct({
  requested: Device,
  chosen: Schema.NullOr(Backend),
  precision: PrecisionReport,
  candidates: Schema.Array(Candidate),
  host: Host,
});
export type AdapterReport = typeof AdapterReport.Type;

/** No way of computing that was asked for works. The report says what was found and what can be done. */
export class RuntimeUnavailable extends Schema.TaggedError<RuntimeUnavailable>()("RuntimeUnavailable", {
  message: Schema.String,
  report: AdapterReport,
}) {}

/** A model that does not load, a feed that does not fit, a device that failed. */
export class RuntimeError extends Schema.TaggedError<RuntimeError>()("RuntimeError", {
  /** Name of the model. */
  model: Schema.String,
  message: Schema.String,
}) {}

/** A training step whose loss or gradient is no finite number; unlike a device that fails, the weights are as good as before. */
export class NotFinite extends Schema.TaggedError<NotFinite>()("NotFinite", {
  /** Name of the model. */
  model: Schema.String,
  message: Schema.String,
}) {}
