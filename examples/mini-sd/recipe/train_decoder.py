"""The autoencoder's decoder alone, a little longer, on the latents that the U-Net was trained on.

The encoder stays as it is, so the latents keep their meaning and everything trained on them stays valid. Half the work
of a step is saved, and it can run beside the attacks.
"""

import random

import torch

import common
import data
import train_unet
import train_vae

BATCH, RATE, CELLS = 16, 1.5e-3, 10


def cut(latents, pictures, items, pick: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """10 x 10 latent cells around an object, and the pixels under them."""
    seen, goal = [], []
    for i in pick:
        size, x, y = random.choice(items[i].boxes)
        left, top = (min(max((at + size // 2) // 4 - CELLS // 2 + random.randint(-2, 2), 0), 16 - CELLS) for at in (x, y))
        seen.append(latents[i, :, top:top + CELLS, left:left + CELLS])
        goal.append(pictures[i, :, 4 * top:4 * (top + CELLS), 4 * left:4 * (left + CELLS)])
    return torch.stack(seen), torch.stack(goal)


def train(minutes=None, steps=None) -> None:
    torch.manual_seed(15)
    random.seed(15)
    items, latents = data.scenes()[common.RANK::common.WORLD], train_unet.latents()
    pictures, vae = data.pictures(items), train_vae.load()
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    stage = common.Stage("decoder", {"vae": vae.train()}, RATE, minutes, steps, decay=0.998, weight_decay=0.0)
    while stage.running():
        pick = random.choices(range(len(items)), k=BATCH)
        whole = latents[pick], pictures[pick]
        seen, goal = cut(latents, pictures, items, pick) if stage.share < 0.75 else whole
        # What the U-Net draws is never exact, so the decoder should bear a little noise.
        seen = seen / vae.config.scaling_factor + 0.05 * torch.randn_like(seen)
        error = vae.decode(seen.to(memory_format=torch.channels_last)).sample - data.to_float(goal).to(common.DEVICE)
        stage.update(error.abs().mean() + 4 * error.square().mean())
    stage.save()
    if common.RANK:
        return
    before = train_vae.psnr()
    stage.average["vae"].eval().to(memory_format=torch.contiguous_format).half().save_pretrained(common.BASE / "vae")
    common.record("decoder", steps=stage.step, minutes=round(stage.spent / 60, 1), batch=BATCH * common.WORLD, lr=RATE,
                  psnr_before=before, psnr_new_scenes=train_vae.psnr(), device=common.DEVICE)
