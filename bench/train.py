"""How long one training step of the U-Net takes, against PyTorch on the same machine, and where the time goes.

    python bench/train.py                                # examples/mini-sd, every backend that this machine has
    python bench/train.py --trained attn2 --batch 8

The step is that of masked distillation: squared distance to a wanted answer, gradients of the trained weights, clipping to
a global norm of 1, AdamW. Measured as bench/unet.py does: in turn, medians, ratios to PyTorch. A backend whose losses stray
from PyTorch's by more than 1e-3 over three steps is an error, not a figure. Requirements: examples/mini-sd/recipe's.
"""

import argparse
import os
import pathlib
import tempfile
import time

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from worker import HERE, measure, prepared, row

LIMIT, STEPS, RATE = 1e-3, 3, 1e-4
TRAINED = {"all": lambda key: True, "attn2": lambda key: key.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, default=HERE.parent / "examples/mini-sd/base", help="diffusers folder")
    parser.add_argument("--devices", nargs="+", default=["wasm", "native"], help="backends, as for sau --device")
    parser.add_argument("--runner", default="npx -y deno@2.9.6 run -A", help="command that runs a TypeScript file")
    parser.add_argument("--trained", choices=TRAINED, default="all")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="PyTorch's threads")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)

    load = lambda: UNet2DConditionModel.from_pretrained(a.model / "unet", torch_dtype=torch.float32).train()
    unet = load()
    c = unet.config
    normal = lambda seed, *shape: torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    shape = (a.batch, c.in_channels, c.sample_size, c.sample_size)
    data = {
        "latents": normal(1, *shape),
        "timestep": torch.linspace(1, 999, a.batch).floor(),
        "context": normal(2, a.batch, 32, c.cross_attention_dim),
        "wanted": normal(3, *shape),
        "weight": torch.full((a.batch, 1, *shape[2:]), 1 / (shape[0] * shape[1] * shape[2] * shape[3])),
    }

    def trainer(model):
        for key, weight in model.named_parameters():
            weight.requires_grad_(TRAINED[a.trained](key))
        weights = [w for w in model.parameters() if w.requires_grad]
        adam = torch.optim.AdamW(weights, lr=RATE)

        def forward():
            answer = model(data["latents"], data["timestep"], data["context"]).sample
            return (data["weight"] * (answer - data["wanted"]) ** 2).sum()

        def run(what):
            if what == "forward":
                with torch.no_grad():
                    return forward().item()
            loss = forward()
            loss.backward()
            if what == "step":
                torch.nn.utils.clip_grad_norm_(weights, 1.0)
                adam.step()
            adam.zero_grad()
            return loss.item()

        return run

    first = trainer(load())
    losses = [first("step") for _ in range(STEPS)]
    run = trainer(unet)

    def torch_run(request):
        begin = time.perf_counter()
        run(request["do"])
        return 1000 * (time.perf_counter() - begin)

    runners = {"PyTorch": torch_run}
    workers = []
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "inputs.safetensors"
        metadata = {"trained": a.trained, "rate": str(RATE), "steps": str(STEPS)}
        save_file({k: v.clone() for k, v in data.items()}, file, metadata=metadata)
        for device, worker, ready in prepared("train.ts", a.runner, a.devices, a.model.resolve(), file):
            workers.append(worker)
            strays = max(abs(x - y) / abs(y) for x, y in zip(ready["losses"], losses))
            if not strays <= LIMIT:
                raise SystemExit(f"{device}: losses {ready['losses']}, PyTorch's {losses}; {LIMIT} is allowed")
            print(f"{device}: losses of {STEPS} steps agree with PyTorch to {strays:.0e}; memory: {ready['memory']}", flush=True)
            runners[device] = lambda request, worker=worker: worker.ask(**request)["ms"]

    print(f"\nPyTorch {torch.__version__}, {a.threads} threads; batch {a.batch}, {a.trained} trained; medians of {a.rounds} rounds")
    print(f"{'':34}" + "".join(f"{name:>22}" for name in runners))
    for name, do in (("forward", "forward"), ("forward and backward", "backward"), ("whole step", "step")):
        print(row(name, measure(runners, {"do": do}, a.rounds)), flush=True)
    for worker in workers:
        worker.close()


if __name__ == "__main__":
    main()
