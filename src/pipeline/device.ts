/** The environment of the built-in steps: the device by name, opened when a step first computes. */
import { Context, type Effect, type Scope } from "effect";
import { type AdapterReport, type Device, Runtime } from "../runtime/mod.ts";
import { type Environment, layerEnvironment } from "./environment.ts";

/** What the chosen device is called in cache keys. */
const chosen = ({ candidates }: AdapterReport): string => {
  const taken = candidates.find((candidate) => candidate.status === "chosen");
  return taken === undefined ? "none" : taken.software ? `${taken.backend}-software` : taken.backend;
};

/** `onOpen` is told the runtime once it is there. */
export const deviceEnvironment = (
  device: Device,
  onOpen: (runtime: Runtime["Service"]) => void = () => {},
): Effect.Effect<Environment<Runtime | Scope.Scope>, never, Scope.Scope> =>
  layerEnvironment(Runtime.layer(device), {
    // A device that is asked for by name is known before it is opened.
    kind: device === "auto" ? (services) => chosen(Context.get(services, Runtime).report) : device,
    lanes: (services) => Context.get(services, Runtime).lanes,
    report: (services) => {
      const runtime = Context.get(services, Runtime);
      onOpen(runtime);
      return runtime.report;
    },
  });
