/** `sau`: the command line with the built-in steps. */
import process from "node:process";
import { fileURLToPath } from "node:url";
import { deviceEnvironment } from "../pipeline/device.ts";
import { diagnose } from "../runtime/mod.ts";
import { renderReport } from "../report/report.ts";
import { builtinSteps } from "../steps/registry.ts";
import { screenLines } from "../steps/screen_lines.ts";
import { main } from "./process.ts";
import { screen } from "./terminal.ts";

await main(process.argv.slice(2), {
  screen: screen(),
  steps: builtinSteps,
  curePipeline: fileURLToPath(new URL("../../pipelines/sau.yaml", import.meta.url)),
  scanPipeline: fileURLToPath(new URL("../../pipelines/scan.yaml", import.meta.url)),
  scanCurePipeline: fileURLToPath(new URL("../../pipelines/scan-cure.yaml", import.meta.url)),
  screenPipeline: fileURLToPath(new URL("../../pipelines/screen.yaml", import.meta.url)),
  screenLines,
  benchFile: fileURLToPath(new URL("../../pipelines/bench.yaml", import.meta.url)),
  diagnose,
  renderReport,
  environment: (device, precision) => deviceEnvironment(device, precision === undefined ? {} : { precision }),
});
