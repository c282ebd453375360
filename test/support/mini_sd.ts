/** The real, tiny Stable Diffusion that tests of whole models use. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const folder = process.env.SAU_MINI_SD ?? fileURLToPath(new URL("../../examples/mini-sd", import.meta.url));

/** Its folder, or undefined where it is not there. */
export const miniSd: string | undefined = existsSync(join(folder, "base", "model_index.json")) ? folder : undefined;

/** For `describe(…, { skip: noMiniSd }, …)`: says why a test is skipped. */
export const noMiniSd: string | false = miniSd === undefined ? `no mini-SD in ${folder} (set SAU_MINI_SD)` : false;
