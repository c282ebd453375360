/**
 * PNDM's linear multistep steps (Liu et al. 2022, eq. 9 and 12; Adams and Bashforth), without Runge-Kutta steps before
 * them: diffusers' PNDMScheduler with skip_prk_steps, the scheduler that Stable Diffusion 1.x was published with. It asks
 * the network once more than it has steps, as the second step is made twice.
 *
 * A schedule whose betas are rescaled to zero SNR is stepped with these betas, which the model was trained on;
 * PNDMScheduler itself does not know of them.
 */
import { alphaBars, type SchedulerConfig } from "../scheduler.ts";
import { transfer } from "./ddim.ts";
import { finite, type SamplingStep, type Solver } from "./schedule.ts";
import { checkSteps, checkTimesteps, wholeTimesteps } from "./spacing.ts";

/** Adams and Bashforth's weights of the newest answer and of those before it, by how many there are. */
const WEIGHTS = [[1], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]];

export const pndm = (config: SchedulerConfig): Solver => {
  const kind = config.prediction_type;
  if (kind === "sample") {
    throw new RangeError("PNDM does not step models whose prediction_type is sample; take ddim or dpmpp-2m");
  }
  return {
    memory: 3,
    noisy: false,
    plan: (steps) => {
      checkSteps(config, steps);
      const bars = alphaBars(config);
      const visited = wholeTimesteps(config, config.timestep_spacing ?? "leading", steps);
      checkTimesteps(visited, bars.length);
      const last = config.set_alpha_to_one ?? false ? 1 : bars[0];
      const stride = Math.floor(config.num_train_timesteps / steps);
      const after = (t: number) => t >= stride ? bars[t - stride] : last;
      const remember = { x: 0, answer: 1 };
      const made: SamplingStep[] = visited.slice(0, 1).map((t) => ({
        timestep: t,
        ...transfer(kind, bars[t], after(t)),
        past: [],
        noise: 0,
        remember,
      }));
      if (visited.length > 1) {
        // The first step again, with the mean of the answers at both of its ends. Where it began is no longer there, but
        // follows from where it ended.
        const t = visited[1];
        const again = transfer(kind, bars[t + stride], bars[t]);
        const x = again.x / made[0].x;
        made.push({
          timestep: t,
          x,
          answer: again.answer / 2,
          past: [again.answer / 2 - x * made[0].answer],
          noise: 0,
        });
      }
      visited.slice(1).forEach((t, i) => {
        const [own, ...past] = WEIGHTS[Math.min(i + 1, WEIGHTS.length - 1)];
        const { x, answer } = transfer(kind, bars[t], after(t));
        made.push({ timestep: t, x, answer: answer * own, past: past.map((w) => answer * w), noise: 0, remember });
      });
      return finite({ start: 1, steps: made });
    },
  };
};
