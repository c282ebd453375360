/** Ways of sampling by the names that users know, and by the class that a model's scheduler_config.json names. */
import type { SchedulerConfig } from "../scheduler.ts";
import { ddim } from "./ddim.ts";
import { dpmpp } from "./dpmpp.ts";
import { euler, eulerAncestral } from "./euler.ts";
import { lcm } from "./lcm.ts";
import { pndm } from "./pndm.ts";
import type { Solver } from "./schedule.ts";

export const schedulerNames = [
  "ddim",
  "own",
  "euler",
  "euler-ancestral",
  "dpmpp-2m",
  "dpmpp-2m-karras",
  "lcm",
  "pndm",
] as const;
export type SchedulerName = (typeof schedulerNames)[number];

/** How a method that was asked for by name spaces and solves: what the file says for its own class's sake does not count. */
const bare = (config: SchedulerConfig): SchedulerConfig => {
  const {
    use_karras_sigmas: _k,
    use_exponential_sigmas: _e,
    use_beta_sigmas: _b,
    use_lu_lambdas: _l,
    use_flow_sigmas: _f,
    interpolation_type: _i,
    sigma_min: _min,
    sigma_max: _max,
    algorithm_type: _a,
    solver_order: _o,
    solver_type: _s,
    lower_order_final: _low,
    euler_at_final: _end,
    ...rest
  } = config;
  return rest;
};

/** What the file names, with all that it says. */
const own: Readonly<Record<string, (config: SchedulerConfig) => Solver>> = {
  DDIMScheduler: ddim,
  PNDMScheduler: (config) => {
    if (!config.skip_prk_steps) {
      throw new RangeError("skip_prk_steps is false, and Runge-Kutta steps are not there; pndm does without them");
    }
    return pndm(config);
  },
  EulerDiscreteScheduler: euler,
  EulerAncestralDiscreteScheduler: eulerAncestral,
  DPMSolverMultistepScheduler: dpmpp,
  LCMScheduler: lcm,
};

/**
 * The way of sampling that a name stands for, for one model.
 * @throws RangeError that says what stands in the way: the model's own scheduler is another one, or has options that are
 * not there, or the method does not go with the model's prediction_type.
 */
export const solverOf = (config: SchedulerConfig, name: SchedulerName): Solver => {
  switch (name) {
    case "ddim":
      return ddim(config);
    case "euler":
      return euler(bare(config));
    case "euler-ancestral":
      return eulerAncestral(bare(config));
    case "dpmpp-2m":
      return dpmpp(bare(config));
    case "dpmpp-2m-karras":
      return dpmpp({ ...bare(config), use_karras_sigmas: true });
    case "lcm":
      return lcm(config);
    case "pndm":
      return pndm(config);
    case "own": {
      const solver = Object.hasOwn(own, config._class_name) ? own[config._class_name] : undefined;
      if (solver === undefined) {
        throw new RangeError(
          `the model's own scheduler is ${config._class_name}; those that can be run are ${
            Object.keys(own).join(", ")
          }`,
        );
      }
      return solver(config);
    }
  }
};
