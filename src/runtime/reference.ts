/** Plain JavaScript in double precision: slow, the same on every machine, free of ONNX Runtime. `auto` never takes it. */
import { Effect } from "effect";
import type { Backend } from "./backend.ts";
import { referenceEngine } from "./reference/engine.ts";

export const reference: Backend = {
  name: "reference",
  find: () =>
    Effect.succeed({
      vendor: "",
      architecture: "",
      description: "plain JavaScript in double precision, for tests",
      software: false,
      threads: 1,
      limits: null,
      version: "sau",
      open: Effect.sync(referenceEngine),
    }),
};
