"""Golden values for src/diffusion/schedules from diffusers' own schedulers.

    python test/golden/make_schedules.py        (torch 2.13.0, diffusers 0.42.1)

schedules.json: each scheduler, over many scheduler_config.json and numbers of steps, is given the same start, network
answers and noises; the file holds the timesteps, what the network is given at each step, and where it ends.
schedules.safetensors: whole guided sampling with the random U-Net of tiny/unet-1x, texts and noise included. The noise on
the way is that of src/diffusion/picture_noise.ts, whose generator is written down here a second time.
"""
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    UNet2DConditionModel,
)
from diffusers.schedulers import scheduling_euler_ancestral_discrete, scheduling_lcm
from safetensors.torch import load_file, save_file

torch.set_num_threads(1)
HERE = Path(__file__).parent
CELLS, MOST = 2, 61
plain = {"use_karras_sigmas": False}
NAMES = {
    "ddim": (DDIMScheduler, {}),
    "euler": (EulerDiscreteScheduler, plain),
    "euler-ancestral": (EulerAncestralDiscreteScheduler, {}),
    "dpmpp-2m": (DPMSolverMultistepScheduler, plain),
    "dpmpp-2m-karras": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "lcm": (LCMScheduler, {}),
    "pndm": (PNDMScheduler, {"skip_prk_steps": True}),
}
CLASSES = {cls.__name__: cls for cls, _ in NAMES.values()}
sd1 = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
v = {**sd1, "prediction_type": "v_prediction"}
zero = {**v, "timestep_spacing": "trailing", "rescale_betas_zero_snr": True}
sample = {**sd1, "prediction_type": "sample"}


def make(config, name):
    if name == "own":
        return CLASSES[config["_class_name"]].from_config({**config, "lambda_min_clipped": config.get("lambda_min_clipped", -math.inf)})
    cls, given = NAMES[name]
    return cls.from_config(config, **given)


generator = torch.Generator().manual_seed(7)
start, answers, noises = (torch.randn(*shape, generator=generator) for shape in [(CELLS,), (MOST, CELLS), (MOST, CELLS)])
given = {"noise": None}
for module in (scheduling_euler_ancestral_discrete, scheduling_lcm):
    module.randn_tensor = lambda *_, **__: given["noise"]


def trajectory(s, steps, x, answer, noise, double=False):
    """
    What the network is given at each step, and where it ends. `answer` and `noise` are asked for each step. In double, the
    schedule is as float32 holds it but stepping does not round: latents of Euler's schedulers are thousands large.
    """
    s.set_timesteps(steps)
    if double:
        for key in ("sigmas", "alphas_cumprod", "final_alpha_cumprod"):
            if hasattr(s, key):
                setattr(s, key, getattr(s, key).double())
    if hasattr(s, "set_begin_index"):
        s.set_begin_index(0)
    x = x * s.init_noise_sigma
    inputs = []
    for i, t in enumerate(s.timesteps):
        inputs.append(s.scale_model_input(x, t))
        given["noise"] = noise(i)
        single = torch.float32
        torch.float32 = torch.float64 if double else single
        try:
            x = s.step(answer(i, inputs[-1], t), t, x).prev_sample
        finally:
            torch.float32 = single
    return inputs, x


def row(what, name, config, steps):
    inputs, end = trajectory(make(config, name), steps, start.double(), lambda i, *_: answers[i].double(), lambda i: noises[i].double(), double=True)
    s = make(config, name)
    s.set_timesteps(steps)
    return {
        "name": f"{name}: {what}, {steps} steps", "scheduler": name, "config": config, "steps": steps,
        "timesteps": s.timesteps.tolist(), "inputs": torch.stack(inputs).tolist(), "end": end.tolist(),
    }  # fmt: skip


def rows():
    configs = {
        "SD 1": sd1,
        "v-prediction": v,
        "leading": {**sd1, "timestep_spacing": "leading"},
        "linspace, v": {**v, "timestep_spacing": "linspace", "set_alpha_to_one": True},
        "trailing": {**sd1, "timestep_spacing": "trailing"},
        "zero terminal SNR": zero,
        "linear, defaults": {"clip_sample": False},
        "cosine": {"beta_schedule": "squaredcos_cap_v2", "clip_sample": False, "prediction_type": "v_prediction"},
        "short training": {**sd1, "num_train_timesteps": 101},
        "trained betas": {"trained_betas": [0.01 * (i + 1) for i in range(60)], "num_train_timesteps": 60, "clip_sample": False},
        "down to the least sigma": {**sd1, "final_sigmas_type": "sigma_min"},
        "sample": sample,
    }
    for what, config in configs.items():
        for name in NAMES:
            kind = config.get("prediction_type")
            if kind == "sample" and name in ("euler-ancestral", "pndm"):
                continue
            # PNDMScheduler does not know of rescaled betas.
            if config is zero and name == "pndm":
                continue
            # LCMScheduler has other betas where none are said; here a model keeps its own class's.
            if what == "linear, defaults" and name == "lcm":
                continue
            yield row(what, name, {**config, **({"original_inference_steps": 20} if name == "lcm" else {})}, 10 if name != "lcm" else 4)
    for name in NAMES:
        for steps in (1, 2, 3, 20):
            yield row("SD 1", name, sd1, steps)
    for name in ("euler", "dpmpp-2m", "dpmpp-2m-karras", "pndm"):
        yield row("SD 1", name, sd1, 60)
    dpm = {**sd1, "_class_name": "DPMSolverMultistepScheduler"}
    eul = {**sd1, "_class_name": "EulerDiscreteScheduler"}
    yield row("PNDM", "own", {**sd1, "_class_name": "PNDMScheduler", "skip_prk_steps": True}, 12)
    yield row("Euler", "own", eul, 12)
    yield row("Euler, Karras", "own", {**eul, "use_karras_sigmas": True}, 12)
    yield row("Euler, exponential", "own", {**eul, "use_exponential_sigmas": True, "timestep_spacing": "leading"}, 12)
    yield row("Euler, Karras within bounds", "own", {**eul, "use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 9.0, "final_sigmas_type": "sigma_min"}, 12)
    yield row("Euler, interpolated in ln sigma", "own", {**eul, "interpolation_type": "log_linear"}, 12)
    yield row("ancestral", "own", {**v, "_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "leading"}, 12)
    yield row("2M", "own", dpm, 18)
    yield row("2M, Heun", "own", {**dpm, "solver_type": "heun"}, 18)
    yield row("first order", "own", {**dpm, "solver_order": 1, "prediction_type": "v_prediction"}, 8)
    yield row("down to the least sigma, second order to the end", "own", {**dpm, "final_sigmas_type": "sigma_min", "lower_order_final": False}, 8)
    yield row("down to the least sigma, Euler at the end", "own", {**dpm, "final_sigmas_type": "sigma_min", "euler_at_final": True}, 17)
    yield row("cosine, Karras, lambdas clipped", "own", {**dpm, "beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True}, 10)
    yield row("cosine, lambdas clipped", "own", {**dpm, "beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1}, 10)
    yield row("exponential", "own", {**dpm, "use_exponential_sigmas": True}, 10)
    yield row("LCM", "own", {**sd1, "_class_name": "LCMScheduler", "original_inference_steps": 50, "timestep_scaling": 1.0, "set_alpha_to_one": True}, 8)
    yield row("LCM, defaults", "own", {"_class_name": "LCMScheduler"}, 4)


def seed_of(root, *names):
    digest = hashlib.sha256(json.dumps([root, *names], separators=(",", ":")).encode()).digest()
    return int.from_bytes(digest[:6], "big") * 32 + (digest[6] >> 3)


def normal(seed, count):
    """Philox4x32-10 and Box and Muller, as src/tensor/random.ts."""
    blocks = math.ceil(count / 4)
    c = [np.arange(blocks, dtype=np.uint64), *(np.full(blocks, k, np.uint64) for k in (0, 0, 1))]
    k0, k1, low = seed & 0xFFFFFFFF, seed >> 32, np.uint64(0xFFFFFFFF)
    for _ in range(10):
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(b >> np.uint64(32)) ^ c[1] ^ np.uint64(k0), b & low, (a >> np.uint64(32)) ^ c[3] ^ np.uint64(k1), a & low]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    w = np.stack(c, 1).reshape(-1).astype(np.float64)
    radius, angle = np.sqrt(-2 * np.log((w[::2] + 1) / 2**32)), 2 * np.pi * (w[1::2] / 2**32)
    return torch.from_numpy(np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).reshape(-1)[:count].astype(np.float32))


def whole(seed=5, pictures=3, steps=6, guidance=3.0):
    folder = HERE / "tiny/unet-1x"
    unet = UNet2DConditionModel.from_config(json.loads((folder / "config.json").read_text())).eval()
    unet.load_state_dict(load_file(folder / "weights.safetensors"))
    dims = (unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
    g = torch.Generator().manual_seed(3)
    context, uncond = (torch.randn(n, 16, unet.config.cross_attention_dim, generator=g) for n in (pictures, 1))
    begin = normal(seed, pictures * math.prod(dims)).reshape(pictures, *dims)
    texts = torch.cat([uncond.expand(pictures, -1, -1), context])
    values = {"context": context, "uncond": uncond, "start": begin}
    for name in NAMES:

        def answer(_, x, t):
            without, told = unet(torch.cat([x, x]), t, texts).sample.chunk(2)
            return without + guidance * (told - without)

        noise = lambda i: torch.stack([normal(seed_of(seed, "fresh", p, i), math.prod(dims)).reshape(dims) for p in range(pictures)])
        with torch.no_grad():
            inputs, end = trajectory(make(sd1, name), steps, begin, answer, noise)
        values[f"{name}.end"], values[f"{name}.captured"] = end, inputs[steps // 2]
    metadata = {"seed": str(seed), "steps": str(steps), "guidance": str(guidance), "config": json.dumps(sd1)}
    save_file({k: t.contiguous() for k, t in values.items()}, HERE / "schedules.safetensors", metadata=metadata)


made = {"made_by": "test/golden/make_schedules.py, diffusers 0.42.1", "start": start.tolist(), "answers": answers.tolist(), "noises": noises.tolist(), "rows": list(rows())}
(HERE / "schedules.json").write_text(json.dumps(made).replace('{"name"', '\n{"name"') + "\n")
whole()
