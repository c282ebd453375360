/** The real command line with the tests' steps, to be run as a process of its own. */
import { Effect } from "effect";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { main } from "../../src/cli/process.ts";
import { screen } from "../../src/cli/terminal.ts";
import { noServices } from "../../src/pipeline/environment.ts";
import { diagnose } from "../../src/runtime/mod.ts";
import { steps } from "../pipeline/steps.ts";

await main(process.argv.slice(2), {
  screen: screen(),
  steps,
  benchFile: fileURLToPath(new URL("../../pipelines/bench.yaml", import.meta.url)),
  scanPipeline: fileURLToPath(new URL("../../pipelines/scan.yaml", import.meta.url)),
  scanCurePipeline: fileURLToPath(new URL("scan-cure.yaml", import.meta.url)),
  screenPipeline: fileURLToPath(new URL("../../pipelines/screen.yaml", import.meta.url)),
  curePipeline: fileURLToPath(new URL("cure.yaml", import.meta.url)),
  diagnose,
  environment: (device) => Effect.succeed(noServices(device)),
  renderReport: (run) => `<!doctype html><title>${run.pipeline.name}</title>`,
});
