"""Golden values for src/diffusion/scheduler.ts from diffusers' DDIMScheduler: timesteps, and what one step makes of (x, output) = (1, 0) and (0, 1).

    python test/golden/make_scheduler.py        (torch 2.13.0, diffusers 0.42.1)
"""
import json
from pathlib import Path

import torch
from diffusers import DDIMScheduler, PNDMScheduler

HERE = Path(__file__).parent
sd1 = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
cases = {
    "SD 1 (leading)": (sd1, 50),
    "SD 1, 20 steps": (sd1, 20),
    "SD 2.1 (v-prediction)": ({**sd1, "prediction_type": "v_prediction"}, 30),
    "linspace, last step to 1": ({**sd1, "timestep_spacing": "linspace", "set_alpha_to_one": True}, 12),
    "linspace, one step": ({**sd1, "timestep_spacing": "linspace"}, 1),
    "trailing, 7 steps": ({**sd1, "timestep_spacing": "trailing", "set_alpha_to_one": True}, 7),
    "zero terminal SNR": ({**sd1, "timestep_spacing": "trailing", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}, 10),
    "linear, defaults": ({"clip_sample": False}, 33),
    "cosine, sample prediction": ({"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample", "clip_sample": False}, 25),
    "short training": ({**sd1, "num_train_timesteps": 101, "timestep_spacing": "linspace", "set_alpha_to_one": True}, 9),
    "trained betas": ({"trained_betas": [0.01 * (i + 1) for i in range(20)], "num_train_timesteps": 20, "clip_sample": False}, 5),
    "PNDM": ({**json.loads(PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1).to_json_string()), "clip_sample": False}, 16),
}
rows = []
for name, (config, steps) in cases.items():
    s = DDIMScheduler.from_config(config)
    s.set_timesteps(steps)
    step = lambda x, e, t: s.step(torch.tensor([[e]]), int(t), torch.tensor([[x]])).prev_sample.item()
    noised = [0, s.config.num_train_timesteps // 2, s.config.num_train_timesteps - 1]
    ts = torch.tensor(noised)
    one, zero = torch.ones(3), torch.zeros(3)
    rows.append({
        "name": name,
        "config": {k: v for k, v in dict(config).items() if not (k == "trained_betas" and v is None)},
        "steps": steps,
        "timesteps": s.timesteps.tolist(),
        "x": [step(1.0, 0.0, t) for t in s.timesteps],
        "noise": [step(0.0, 1.0, t) for t in s.timesteps],
        "noised": [{"t": t, "x": a, "noise": b} for t, a, b in zip(noised, s.add_noise(one, zero, ts).tolist(), s.add_noise(zero, one, ts).tolist())],
    })
(HERE / "scheduler.json").write_text(json.dumps({"made_by": "test/golden/make_scheduler.py, diffusers 0.42.1", "rows": rows}).replace('{"name"', '\n{"name"') + "\n")
