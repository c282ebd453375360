/** What one run may use up: time on the device, and memory on it and in this process. */
import { Data, Effect } from "effect";
import process from "node:process";
import { byteText } from "../tensor/bytes.ts";
import type { Limits } from "./limits.ts";

export class TimeBudget extends Data.TaggedError("TimeBudget")<{ readonly message: string }> {}
export class MemoryBudget extends Data.TaggedError("MemoryBudget")<{ readonly message: string }> {}

/** Milliseconds between two looks at the memory. */
const LOOK = 200;

/** Runs a body within the limits; beyond them it is interrupted. `held`: bytes on the device now. */
export const withinBudget =
  ({ seconds, memory }: Pick<Limits, "seconds" | "memory">, held: () => number) =>
  <A, E, R>(body: Effect.Effect<A, E, R>): Effect.Effect<A, E | TimeBudget | MemoryBudget, R> =>
    Effect.suspend(() => {
      const before = process.memoryUsage.rss();
      const heldBefore = held();
      const watch: Effect.Effect<never, MemoryBudget> = Effect.gen(function* () {
        for (;;) {
          yield* Effect.sleep(LOOK);
          const used = Math.max(process.memoryUsage.rss() - before, held() - heldBefore);
          if (used > memory) {
            return yield* new MemoryBudget({
              message: `the run took ${byteText(used)} of memory, and ${byteText(memory)} is what a run may take`,
            });
          }
        }
      });
      return Effect.raceFirst(body, watch).pipe(
        Effect.timeoutOrElse({
          duration: `${seconds} seconds`,
          orElse: () =>
            Effect.fail(
              new TimeBudget({
                message: `the run computed for ${seconds} s, which is what a run may take; its finished steps are kept`,
              }),
            ),
        }),
      );
    });
