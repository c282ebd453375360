/**
 * The way to the device: a few runs at a time, the others in line. Clients take turns, however many runs each has
 * waiting; the line has an end, and what does not fit is refused at once.
 */
import { Effect, PartitionedSemaphore } from "effect";
import type { Limits } from "./limits.ts";
import { Refusal } from "./problems.ts";

export interface Queue {
  /** Runs that wait, and runs that compute. */
  readonly state: () => { readonly waiting: number; readonly running: number };
  /** Takes a place in the line, at once or not at all. */
  readonly admit: (client: string) => Effect.Effect<Place, Refusal>;
}

export interface Place {
  /** Waits for the turn and runs the body in it. */
  readonly inTurn: <A, E, R>(body: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>;
  /** Gives the place up; where the turn has come this does nothing. */
  readonly leave: () => void;
}

export const makeQueue = (limits: Pick<Limits, "running" | "waiting" | "waitingPerClient">): Queue => {
  const turns = PartitionedSemaphore.makeUnsafe<string>({ permits: limits.running });
  const waiting = new Map<string, number>();
  let all = 0;
  let running = 0;
  /** Recent seconds of a turn, to say when to come again. */
  let usual = 10;

  const change = (client: string, by: 1 | -1) => {
    all += by;
    const own = (waiting.get(client) ?? 0) + by;
    if (own === 0) waiting.delete(client);
    else waiting.set(client, own);
  };

  const admit: Queue["admit"] = (client) =>
    Effect.suspend(() => {
      // A run that finds the device free takes its place in the line for a moment only.
      const idle = running + all < limits.running;
      const own = waiting.get(client) ?? 0;
      if (!idle && (all >= limits.waiting || own >= limits.waitingPerClient)) {
        const seconds = Math.ceil(Math.min(600, Math.max(1, usual * (own >= limits.waitingPerClient ? own : 1))));
        return Effect.fail(
          new Refusal({
            kind: "queue-full",
            detail: own >= limits.waitingPerClient
              ? `${own} runs of yours are waiting already; try again in ${seconds} s`
              : `${all} runs are waiting; try again in ${seconds} s`,
            headers: { "retry-after": String(seconds) },
          }),
        );
      }
      change(client, 1);
      let left = false;
      const leave = () => {
        if (!left) change(client, -1);
        left = true;
      };
      const inTurn: Place["inTurn"] = (body) =>
        turns.withPermit(client)(Effect.suspend(() => {
          const began = performance.now();
          leave();
          running++;
          return Effect.ensuring(
            body,
            Effect.sync(() => {
              running--;
              usual += ((performance.now() - began) / 1000 - usual) / 4;
            }),
          );
        }));
      return Effect.succeed({ inTurn, leave });
    });

  return { state: () => ({ waiting: all, running }), admit };
};
