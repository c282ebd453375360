/** `sau`: the command line with the built-in steps. */
import { Context } from "effect";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { layerEnvironment } from "../pipeline/environment.ts";
import { type AdapterReport, diagnose, Runtime } from "../runtime/mod.ts";
import { renderReport } from "../report/report.ts";
import { builtinSteps } from "../steps/registry.ts";
import { main } from "./process.ts";
import { screen } from "./terminal.ts";

const chosen = ({ candidates }: AdapterReport): string => {
  const taken = candidates.find((candidate) => candidate.status === "chosen");
  return taken === undefined ? "none" : taken.software ? `${taken.backend}-software` : taken.backend;
};

await main(process.argv.slice(2), {
  screen: screen(),
  steps: builtinSteps,
  curePipeline: fileURLToPath(new URL("../../pipelines/sau.yaml", import.meta.url)),
  scanPipeline: fileURLToPath(new URL("../../pipelines/scan.yaml", import.meta.url)),
  benchFile: fileURLToPath(new URL("../../pipelines/bench.yaml", import.meta.url)),
  diagnose,
  renderReport,
  environment: (device) =>
    layerEnvironment(Runtime.layer(device), {
      // A device that is asked for by name is known before it is opened.
      kind: device === "auto" ? (services) => chosen(Context.get(services, Runtime).report) : device,
      report: (services) => Context.get(services, Runtime).report,
    }),
});
