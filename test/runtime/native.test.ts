/** onnxruntime-node, when it is installed; without it, one test that is visibly skipped. */
import { describe, it } from "node:test";
import { Effect, Result } from "effect";
import { native } from "../../src/runtime/native.ts";
import { sessionLaws } from "./session_laws.ts";

const found = await Effect.runPromise(Effect.scoped(Effect.result(native().find({ software: false }))));

if (Result.isSuccess(found)) {
  sessionLaws("native");
} else {
  describe("a session on native", () => {
    it(`skipped: ${found.failure.reason}`, { skip: true }, () => undefined);
  });
}
