/** A way of computing before it is trusted: how it is looked for, what is known of it, how it is opened. */
import { Data, type Effect, type Scope } from "effect";
import type { BackendName, Engine } from "./engine.ts";
import type { Candidate } from "./report.ts";

/** Why a device is not there or does not open, and what to do about it. */
export class Missing extends Data.TaggedError("Missing")<{
  readonly reason: string;
  readonly advice: readonly string[];
}> {}

export interface Found
  extends Pick<Candidate, "vendor" | "architecture" | "description" | "software" | "threads" | "limits" | "version"> {
  /** A reason to refuse it without trying. */
  readonly refuse?: string;
  readonly open: Effect.Effect<Engine, Missing, Scope.Scope>;
}

export interface Backend {
  readonly name: BackendName;
  /** Looks for the device. `software`: an emulated one is wanted. */
  readonly find: (options: { readonly software: boolean }) => Effect.Effect<Found, Missing, Scope.Scope>;
}
