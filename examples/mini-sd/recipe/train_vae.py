"""AutoencoderKL: 64 x 64 x 3 to 16 x 16 x 4 and back."""

import math
import random

import torch
from diffusers import AutoencoderKL

import common
import data

BATCH, RATE = 16, 2e-3


def network() -> AutoencoderKL:
    vae = AutoencoderKL(
        sample_size=data.SIDE, latent_channels=4, block_out_channels=(16, 32, 64), layers_per_block=1,
        norm_num_groups=8, mid_block_add_attention=False,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
    )
    # The posterior starts narrow. With the usual unit width the noise drowns the latents for hundreds of steps.
    torch.nn.init.constant_(vae.quant_conv.bias[4:], -5.0)
    return vae


def near_object(pictures, items, pick: list[int]) -> torch.Tensor:
    """40 x 40 around an object. Two thirds of a scene are plain background, which is learned in no time."""
    side, parts = 40, []
    for i in pick:
        size, x, y = random.choice(items[i].boxes)
        left, top = (min(max(at + (size - side) // 2 + random.randint(-8, 8), 0), data.SIDE - side) for at in (x, y))
        parts.append(pictures[i, :, top:top + side, left:left + side])
    return torch.stack(parts)


def train(minutes=None, steps=None) -> None:
    torch.manual_seed(10)
    random.seed(10)
    items = data.scenes()
    pictures = data.pictures(items)
    vae = network().to(common.DEVICE, memory_format=torch.channels_last)
    # A long memory for the second moment made the start slow; the short one is steady enough at this size.
    stage = common.Stage("vae", {"vae": vae}, RATE, minutes, steps, decay=0.998, weight_decay=0.0)
    while stage.running():
        pick = random.choices(range(len(items)), k=BATCH)
        # Cut-outs first, two and a half times as many a second; whole scenes at the end, for the norms' statistics.
        batch = near_object(pictures, items, pick) if stage.share < 0.8 else pictures[pick]
        batch = data.to_float(batch).to(common.DEVICE)
        posterior = vae.encode(batch).latent_dist
        shown = vae.decode(posterior.sample()).sample
        error = shown - batch
        # L1 keeps edges, MSE keeps faces from being averaged away; the KL term only keeps the latents near unit size.
        loss = error.abs().mean() + 4 * error.square().mean() + 2e-6 * posterior.kl().mean()
        stage.update(loss)
    stage.save()
    if common.RANK:
        return
    vae = stage.average["vae"].eval()
    # The pipeline expects latents of unit spread.
    with torch.no_grad():
        sample = data.to_float(pictures[:1024]).to(common.DEVICE)
        latents = torch.cat([vae.encode(part).latent_dist.mean for part in sample.split(128)])
    vae.register_to_config(scaling_factor=1 / latents.std().item())
    common.save_half(vae.to(memory_format=torch.contiguous_format), common.BASE / "vae")
    common.record("vae", steps=stage.step, minutes=round(stage.spent / 60, 1), batch=BATCH * common.WORLD, lr=RATE,
                  psnr_new_scenes=psnr(), device=common.DEVICE)


def load() -> AutoencoderKL:
    # The weights lie in half precision; arithmetic is done in single.
    vae = AutoencoderKL.from_pretrained(common.BASE / "vae", torch_dtype=torch.float32).eval()
    return vae.to(common.DEVICE, memory_format=torch.channels_last)


@torch.no_grad()
def psnr(count: int = 512) -> float:
    """Over new scenes (another seed), both ways through the saved half-precision weights."""
    vae, errors = load(), []
    for part in data.to_float(data.pictures(data.scenes(count, seed=99))).split(64):
        part = part.to(common.DEVICE)
        shown = vae.decode(vae.encode(part).latent_dist.mean).sample.clamp(-1, 1)
        errors.append(((shown - part) / 2).square().mean().item())
    return round(10 * math.log10(1 / (sum(errors) / len(errors))), 2)


@torch.no_grad()
def encode(vae, pictures: torch.Tensor) -> torch.Tensor:
    parts = [vae.encode(data.to_float(part).to(common.DEVICE)).latent_dist.mean for part in pictures.split(128)]
    return torch.cat(parts) * vae.config.scaling_factor


@torch.no_grad()
def rebuild(vae, pictures: torch.Tensor) -> torch.Tensor:
    """Real pictures there and back: the most that any U-Net can reach with this autoencoder."""
    parts = (vae.decode(vae.encode(part.to(common.DEVICE)).latent_dist.mean).sample for part in pictures.split(64))
    return torch.cat([part.clamp(-1, 1).cpu() for part in parts])
