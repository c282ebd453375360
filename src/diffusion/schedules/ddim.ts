/** DDIM without noise (Song et al. 2021, eq. 12 with η = 0), as diffusers' DDIMScheduler steps it. */
import { alphaBars, type SchedulerConfig } from "../scheduler.ts";
import { finite, type Pair, plain, type Solver } from "./schedule.ts";
import { checkSteps, checkTimesteps, wholeTimesteps } from "./spacing.ts";

/** One step from ᾱ_t = a to ᾱ_{t−1} = b, as a linear map of latents and output. */
export const transfer = (kind: SchedulerConfig["prediction_type"], a: number, b: number): Pair => {
  const [sa, na, sb, nb] = [Math.sqrt(a), Math.sqrt(1 - a), Math.sqrt(b), Math.sqrt(1 - b)];
  switch (kind) {
    case "epsilon": // x₀ = (x − na·ε)/sa
      return { x: sb / sa, answer: nb - sb * na / sa };
    case "v_prediction": // x₀ = sa·x − na·v, ε = sa·v + na·x
      return { x: sb * sa + nb * na, answer: nb * sa - sb * na };
    case "sample": // ε = (x − sa·x₀)/na
      return { x: nb / na, answer: sb - nb * sa / na };
  }
};

export const ddim = (config: SchedulerConfig): Solver => ({
  memory: 0,
  noisy: false,
  plan: (steps) => {
    checkSteps(config, steps);
    const bars = alphaBars(config);
    const timesteps = wholeTimesteps(config, config.timestep_spacing ?? "leading", steps);
    checkTimesteps(timesteps, bars.length);
    const last = config.set_alpha_to_one ?? true ? 1 : bars[0];
    const stride = Math.floor(config.num_train_timesteps / steps);
    return finite({
      start: 1,
      steps: timesteps.map((t) =>
        plain(t, transfer(config.prediction_type, bars[t], t >= stride ? bars[t - stride] : last))
      ),
    });
  },
});
