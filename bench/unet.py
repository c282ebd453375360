"""How long one U-Net evaluation and one guided sampling take, against diffusers in PyTorch on the same machine.

    python bench/unet.py                          # examples/mini-sd, every backend that this machine has
    python bench/unet.py --model DIR --rounds 31 --runner "bun"
    python bench/unet.py --model DIR --random-texts --side 32 --batches 2 --pictures 0 --rounds 5   # bench/real_size.ts make DIR

PyTorch and each backend run the same inputs in turn, once each a round, in an order that reverses every round, so that
whatever else the machine does falls on all of them alike. Figures are medians of --rounds; the ratio is to PyTorch, below 1
is faster. A backend that strays from PyTorch's values by more than 1e-4 is an error, not a figure. Native code is measured
where onnxruntime-node is installed (SAU_MODULES may name the folder). Requirements: examples/mini-sd/recipe's.
"""

import argparse
import os
import pathlib
import tempfile
import time

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTokenizer

from worker import HERE, measure, prepared, row

LIMIT = 1e-4
PROMPTS = [f"a {style} picture of a {thing}" for thing in ("cat", "rocket", "pizza", "owl") for style in ("flat", "cartoon")]


def sample(unet, scheduler, texts, uncond, latents, steps, guidance):
    """Guided DDIM sampling as StableDiffusionPipeline does it."""
    scheduler.set_timesteps(steps)
    context = torch.cat([uncond.expand_as(texts), texts])
    for t in scheduler.timesteps:
        without, with_text = unet(torch.cat([latents] * 2), t, context).sample.chunk(2)
        latents = scheduler.step(without + guidance * (with_text - without), t, latents).prev_sample
    return latents


def states(a, normal, width):
    """States of the empty text and of as many texts as are asked for."""
    count = max([*a.batches, a.pictures])
    if a.random_texts:
        return normal(91, 1, 77, width), normal(92, count, 77, width)
    encoder = CLIPTextModel.from_pretrained(a.model / "text_encoder", torch_dtype=torch.float32).eval()
    tokenizer = CLIPTokenizer.from_pretrained(a.model / "tokenizer")
    length = encoder.config.max_position_embeddings
    prompts = ["", *(PROMPTS[i % len(PROMPTS)] for i in range(count))]
    tokens = tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    return encoder(tokens.input_ids)[0].split([1, count])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, default=HERE.parent / "examples/mini-sd/base", help="diffusers folder")
    parser.add_argument("--devices", nargs="+", default=["wasm", "native"], help="backends, as for sau --device")
    parser.add_argument("--runner", default="npx -y deno@2.9.6 run -A", help="command that runs a TypeScript file")
    parser.add_argument("--batches", type=int, nargs="+", default=[2, 16])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="PyTorch's threads")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--pictures", type=int, default=8, help="pictures in one sampling run; 0 leaves sampling out")
    parser.add_argument("--side", type=int, help="height and width of the latents in cells, where not the model's own")
    parser.add_argument("--random-texts", action="store_true", help="random text states: the folder needs no text encoder")
    a = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.set_num_threads(a.threads)

    unet = UNet2DConditionModel.from_pretrained(a.model / "unet", torch_dtype=torch.float32).eval()
    scheduler = DDIMScheduler.from_pretrained(a.model / "scheduler")
    c = unet.config
    side = a.side or c.sample_size
    normal = lambda seed, *shape: torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    uncond, texts = states(a, normal, c.cross_attention_dim)

    tensors = {"timestep": torch.tensor([501.0])}
    for batch in a.batches:
        inputs = {"sample": normal(batch, batch, c.in_channels, side, side), "context": texts[:batch]}
        inputs["noise"] = unet(inputs["sample"], tensors["timestep"], inputs["context"]).sample
        tensors |= {f"{key}.{batch}": value for key, value in inputs.items()}
    draw = lambda: sample(unet, scheduler, tensors["texts"], tensors["uncond"], tensors["start"], a.steps, a.guidance)
    if a.pictures > 0:
        start = normal(93, a.pictures, c.in_channels, side, side)
        tensors |= {"texts": texts[: a.pictures], "uncond": uncond, "start": start}
        tensors["final"] = draw()

    def torch_run(request):
        begin = time.perf_counter()
        if request["do"] == "sample":
            draw()
        else:
            batch = request["batch"]
            unet(tensors[f"sample.{batch}"], tensors["timestep"], tensors[f"context.{batch}"])
        return 1000 * (time.perf_counter() - begin)

    runners = {"PyTorch": torch_run}
    workers = []
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "inputs.safetensors"
        metadata = {"batches": " ".join(map(str, a.batches)), "steps": str(a.steps), "guidance": str(a.guidance)}
        save_file({k: v.clone() for k, v in tensors.items()}, file, metadata=metadata)
        for device, worker, ready in prepared("unet.ts", a.runner, a.devices, a.model.resolve(), file):
            workers.append(worker)
            strays = {what: e for what, e in ready["errors"].items() if not e <= LIMIT}
            if strays:
                raise SystemExit(f"{device} strays from PyTorch by {strays}; {LIMIT} is allowed")
            print(f"{device}: agrees with PyTorch to {max(ready['errors'].values()):.0e}", flush=True)
            runners[device] = lambda request, worker=worker: worker.ask(**request)["ms"]

    works = {f"U-Net, batch {batch}": {"do": "unet", "batch": batch} for batch in a.batches}
    if a.pictures > 0:
        works[f"{a.pictures} pictures, {a.steps} steps, guided"] = {"do": "sample"}
    print(f"\nPyTorch {torch.__version__}, {a.threads} threads; medians of {a.rounds} rounds (a third of them for sampling)")
    print(f"{'':34}" + "".join(f"{name:>22}" for name in runners))
    for name, request in works.items():
        rounds = a.rounds if request["do"] == "unet" else max(3, a.rounds // 3)
        print(row(name, measure(runners, request, rounds)), flush=True)
    for worker in workers:
        worker.close()


if __name__ == "__main__":
    main()
