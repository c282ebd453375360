"""Prompts to pictures with any mix of parts: the pipeline's own arithmetic, in batches, with one seed a picture."""

import torch
from PIL import Image

import common
import tokenizer as tok
import train_unet


def noises(count: int, first: int = 0) -> torch.Tensor:
    """Picture i starts from seed first + i, whatever the batch, so two models can be compared picture by picture."""
    return torch.stack([torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(first + i)) for i in range(count)])


@torch.no_grad()
def draw(parts, prompts: list[str], steps=12, guidance=4.0, seed=0, batch=32) -> torch.Tensor:
    """Floats in -1..1, N x 3 x 64 x 64. parts: tokenizer, text, unet, vae."""
    scheduler, out = train_unet.scheduler(), []
    start = noises(len(prompts), seed).to(common.DEVICE)
    empty = parts.text(tok.encode(parts.tokenizer, [""]).to(common.DEVICE)).last_hidden_state
    for i in range(0, len(prompts), batch):
        hidden = parts.text(tok.encode(parts.tokenizer, prompts[i:i + batch]).to(common.DEVICE)).last_hidden_state
        both = torch.cat([empty.expand_as(hidden), hidden])
        x = start[i:i + batch]
        scheduler.set_timesteps(steps)
        for t in scheduler.timesteps:
            without, given = parts.unet(torch.cat([x, x]), t, both, return_dict=False)[0].chunk(2)
            x = scheduler.step(without + guidance * (given - without), t, x).prev_sample
        out.append(parts.vae.decode(x / parts.vae.config.scaling_factor).sample.clamp(-1, 1).cpu())
    return torch.cat(out)


def grid(batch: torch.Tensor, columns: int, scale: int = 1) -> Image.Image:
    rows = -(-len(batch) // columns)
    sheet = Image.new("RGB", (columns * 64, rows * 64))
    for i, one in enumerate(((batch + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()):
        sheet.paste(Image.fromarray(one), (i % columns * 64, i // columns * 64))
    return sheet.resize((sheet.width * scale, sheet.height * scale), Image.Resampling.NEAREST)
