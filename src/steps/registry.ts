/** The built-in steps, in the order in which `sau steps` lists them. */
import type { AnyStep } from "./step.ts";

export const builtinSteps = [] as const satisfies ReadonlyArray<AnyStep>;
