"""Where things lie, how long a stage lasts, and how it goes on after an interruption."""

import copy
import json
import math
import os
import random
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

ROOT = Path(__file__).resolve().parent.parent
# The recipe can write to another folder, so that a trial run leaves the committed weights alone.
OUT = Path(os.environ.get("MINI_SD_OUT", ROOT))
BASE, CLIP, ATTACKS, CLEAN = OUT / "base", OUT / "clip", OUT / "attacks", OUT / "clean"
RUN = Path(os.environ.get("MINI_SD_RUN", OUT / "run"))  # checkpoints and logs; not committed
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

# Under torchrun each core trains on a thread of its own and they meet once a step. On a busy machine that is far faster
# than two threads that must meet in every operation.
RANK, WORLD = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
if WORLD > 1:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(hours=2))


def mixed():
    """bfloat16 products where the processor has them; weights, losses and the optimizer stay in single precision.

    torch.compile would be faster still, but in torch 2.13 on a CPU it returns zero gradients before an upsampler.
    """
    return torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=DEVICE == "cuda" or torch.cpu._is_avx512_bf16_supported())


def wait() -> None:
    """Workers go on together, when the first of them has written what the next stage reads."""
    if WORLD > 1:
        dist.barrier()


def log(*words) -> None:
    print(time.strftime("%H:%M:%S"), *words, flush=True)


def record(stage: str, **facts) -> None:
    """Adds a stage's facts to training.json: what was really done, not what was planned."""
    path = OUT / "training.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    known[stage] = facts
    path.write_text(json.dumps(known, indent=2) + "\n")


def recorded(stage: str) -> dict:
    return json.loads((OUT / "training.json").read_text())[stage]


def save_half(model, folder: Path) -> None:
    """Half precision on disk."""
    model.half().save_pretrained(folder)
    tidy(folder)


def tidy(folder: Path) -> None:
    """transformers loads in the type its config names, diffusers in single precision: left so, the pipeline's parts
    would open in two types and not fit together. And where a part once lay on this machine is nobody's business."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.pop("_name_or_path", None)
    if config.get("dtype") == "float16":
        config["dtype"] = "float32"
    path.write_text(json.dumps(config, indent=2) + "\n")


class Stage:
    """A training loop's clock, optimizer, moving average and checkpoint.

    The length is given in minutes or in steps. The learning rate follows the share that is done (short warm-up, then
    a cosine down to 2 %), so a slow machine ends with a finished model too, only after fewer steps.
    """

    def __init__(self, name, modules, lr, minutes=None, steps=None, decay=0.999, weight_decay=0.01, beta2=0.99):
        self.name, self.modules, self.lr = name, modules, lr
        self.minutes, self.steps, self.decay = minutes, steps, decay
        weights = [p for m in modules.values() for p in m.parameters() if p.requires_grad]
        self.weights = weights
        self.optimizer = torch.optim.AdamW(weights, lr=lr, betas=(0.9, beta2), weight_decay=weight_decay, fused=True)
        self.average = {key: copy.deepcopy(m).requires_grad_(False) for key, m in modules.items()}
        self.step, self.spent, self.total, self.shown = 0, 0.0, 0.0, 0
        self.path = RUN / f"{name}.pt"
        if self.path.exists():
            self.resume()
        if RANK:  # the same weights at first, other pictures from here on
            torch.manual_seed(1000 * RANK + self.step)
            random.seed(1000 * RANK + self.step)
        self.tick = self.saved = time.monotonic()

    @property
    def share(self) -> float:
        return self.step / self.steps if self.steps else self.spent / (60 * self.minutes)

    def running(self) -> bool:
        now = time.monotonic()
        self.spent, self.tick = self.spent + now - self.tick, now
        if WORLD > 1:  # one clock for all, so that all stop at one step
            clock = torch.tensor([self.spent], dtype=torch.double)
            dist.broadcast(clock, 0)
            self.spent = clock.item()
        if now - self.saved > 180:
            self.save()
        return self.share < 1

    def update(self, loss: torch.Tensor) -> None:
        rate = self.lr * min(1, (self.step + 1) / 100) * (0.02 + 0.98 * (1 + math.cos(math.pi * min(1, self.share))) / 2)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss.backward()
        if WORLD > 1:
            grads = [p.grad for p in self.weights if p.grad is not None]
            flat = torch.cat([g.flatten() for g in grads])
            dist.all_reduce(flat)
            for grad, part in zip(grads, flat.split([g.numel() for g in grads])):
                grad.copy_(part.view_as(grad) / WORLD)
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        # Early on a long memory would hold the random start, so the average's memory grows with the steps.
        keep = min(self.decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for key, module in self.modules.items():
                new, old = list(module.parameters()), list(self.average[key].parameters())
                torch._foreach_lerp_(old, new, 1 - keep)
        self.total, self.shown = self.total + loss.item(), self.shown + 1
        if self.step % 50 == 0 and not RANK:
            pace = self.step / max(self.spent, 1e-9)
            log(self.name, f"step {self.step} loss {self.total / self.shown:.4f} {self.share:.0%} {pace:.2f} steps/s")
            self.total, self.shown = 0.0, 0

    def save(self) -> None:
        self.saved = time.monotonic()
        if RANK:
            return
        RUN.mkdir(parents=True, exist_ok=True)
        state = {
            "modules": {k: m.state_dict() for k, m in self.modules.items()},
            "average": {k: m.state_dict() for k, m in self.average.items()},
            "optimizer": self.optimizer.state_dict(), "step": self.step, "spent": self.spent,
            "torch_rng": torch.get_rng_state(), "python_rng": random.getstate(),
        }
        # Written beside and renamed: an interruption while saving leaves the earlier checkpoint whole.
        torch.save(state, self.path.with_suffix(".new"))
        os.replace(self.path.with_suffix(".new"), self.path)

    def resume(self) -> None:
        state = torch.load(self.path, weights_only=False, map_location=DEVICE)
        for key, module in self.modules.items():
            module.load_state_dict(state["modules"][key])
            self.average[key].load_state_dict(state["average"][key])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.spent = state["step"], state["spent"]
        torch.set_rng_state(state["torch_rng"].cpu())
        random.setstate(state["python_rng"])
        log(self.name, "goes on at step", self.step)
