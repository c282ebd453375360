/** The environment of the built-in steps: the device by name, opened when a step first computes. */
import { Context, type Effect, type Scope } from "effect";
import { type AdapterReport, type Device, type Precision, Runtime } from "../runtime/mod.ts";
import { type Environment, layerEnvironment } from "./environment.ts";

/** What the chosen device is called in cache keys; pictures drawn in another precision are others. */
const chosen = ({ candidates, precision }: AdapterReport): string => {
  const taken = candidates.find((candidate) => candidate.status === "chosen");
  if (taken === undefined) return "none";
  const halves = precision.chosen !== "float16" ? "" : precision.requested === "auto" ? "-halves" : "-float16";
  return `${taken.backend}${taken.software ? "-software" : ""}${halves}`;
};

/** The flags that ask for a kind of device again. */
export const flagsOf = (kind: string): string => {
  const [, device, halves] = /^(.*?)(-halves|-float16)?$/.exec(kind) ?? [];
  const precision = halves === "-halves" ? "auto" : halves === "-float16" ? "float16" : "float32";
  return device.startsWith("webgpu") ? `--device ${device} --precision ${precision}` : `--device ${device}`;
};

/** `onOpen` is told the runtime once it is there. */
export const deviceEnvironment = (
  device: Device,
  { precision = "auto", onOpen = () => {} }: {
    readonly precision?: Precision;
    readonly onOpen?: (runtime: Runtime["Service"]) => void;
  } = {},
): Effect.Effect<Environment<Runtime | Scope.Scope>, never, Scope.Scope> =>
  layerEnvironment(Runtime.layer(device, { precision }), {
    // A device that is asked for by name is known before it is opened, unless its halves are to be looked at.
    kind: device === "auto" || (device.startsWith("webgpu") && precision !== "float32")
      ? (services) => chosen(Context.get(services, Runtime).report)
      : device,
    lanes: (services) => Context.get(services, Runtime).lanes,
    report: (services) => {
      const runtime = Context.get(services, Runtime);
      onOpen(runtime);
      return runtime.report;
    },
  });
