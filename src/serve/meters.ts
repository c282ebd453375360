/** What Prometheus scrapes: counters of runs and requests, gauges of the line and of the device. */
import { Effect, Metric } from "effect";
import { PrometheusMetrics } from "effect/observability";
import process from "node:process";
import type { Usage } from "../runtime/mod.ts";
import type { RunState } from "./api.ts";

export interface Gauges {
  readonly waiting: number;
  readonly running: number;
  readonly remembered: number;
  readonly usage: Usage;
}

/** A registry of its own for each server, so that two in a process do not add up. */
export const makeMeters = () => {
  const registry = new Map();
  const own = <A>(effect: Effect.Effect<A>): Effect.Effect<A> =>
    Effect.provideService(effect, Metric.MetricRegistry, registry);
  const ended = (state: string) =>
    Metric.counter("sau_runs_total", {
      description: "Runs that ended, by state",
      attributes: { state },
      incremental: true,
    });
  const seconds = Metric.histogram("sau_run_seconds", {
    description: "Seconds from a request to the end of its run",
    boundaries: [0.1, 1, 10, 60, 300, 1800, 3600],
  });
  const requests = (status: number) =>
    Metric.counter("sau_requests_total", {
      description: "Requests, by status",
      attributes: { status: String(status) },
      incremental: true,
    });
  const gauge = (name: string, description: string) => Metric.gauge(name, { description });
  const gauges = {
    waiting: gauge("sau_runs_waiting", "Runs in line for the device"),
    running: gauge("sau_runs_running", "Runs that compute"),
    remembered: gauge("sau_runs_remembered", "Runs that can be asked about"),
    sessions: gauge("sau_device_sessions", "Models that are loaded"),
    tensors: gauge("sau_device_tensors", "Tensors on the device"),
    bytes: gauge("sau_device_bytes", "Bytes of models and tensors on the device"),
    memory: gauge("process_resident_memory_bytes", "Resident memory of the process"),
  };
  return {
    runEnded: (state: RunState["state"], elapsed: number): void => {
      Effect.runSync(own(Effect.andThen(Metric.update(ended(state), 1), Metric.update(seconds, elapsed))));
    },
    answered: (status: number): Effect.Effect<void> => own(Metric.update(requests(status), 1)),
    text: ({ usage, ...counts }: Gauges): Effect.Effect<string> =>
      own(Effect.gen(function* () {
        const values = { ...counts, ...usage, memory: process.memoryUsage.rss() };
        for (const [name, metric] of Object.entries(gauges)) {
          yield* Metric.update(metric, values[name as keyof typeof gauges]);
        }
        return yield* PrometheusMetrics.format();
      })),
  };
};
