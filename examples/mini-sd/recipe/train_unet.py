"""UNet2DConditionModel on the latents, conditioned on the text encoder's last hidden state."""

import random

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

import captions
import common
import data
import tokenizer as tok
import train_clip
import train_vae

BATCH, RATE = 16, 1e-3  # a batch for each worker
EMPTY = 0.1  # share of empty captions, for classifier-free guidance
GAMMA = 5.0  # min-SNR weighting: without it the nearly noiseless steps eat the training and pictures stay blobs


def network() -> UNet2DConditionModel:
    # Attention only at 8 x 8 and in the middle: at 16 x 16 it costs as much as all convolutions there together.
    return UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, block_out_channels=(64, 96, 128), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=128, attention_head_dim=4, norm_num_groups=16,
    )


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
                         set_alpha_to_one=True, steps_offset=1, timestep_spacing="linspace")


def latents() -> torch.Tensor:
    """Encoded once and kept: the scenes never change. Each worker encodes and returns its own share."""
    path = common.RUN / "latents.pt"
    if path.exists():
        return torch.load(path, map_location=common.DEVICE)[common.RANK::common.WORLD]
    mine = train_vae.encode(train_vae.load(), data.pictures(data.scenes()[common.RANK::common.WORLD]))
    everyone = [torch.empty_like(mine) for _ in range(common.WORLD)]
    if common.WORLD > 1:
        torch.distributed.all_gather(everyone, mine)
    else:
        everyone = [mine]
    if not common.RANK:
        common.RUN.mkdir(parents=True, exist_ok=True)
        torch.save(torch.stack(everyone, 1).flatten(0, 1).contiguous(), path)
    return mine


def min_snr(alphas: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    snr = alphas[t] / (1 - alphas[t])
    return snr.clamp(max=GAMMA) / snr


def weighted(predicted, noise, weight) -> torch.Tensor:
    return (F.mse_loss(predicted, noise, reduction="none").mean((1, 2, 3)) * weight).mean()


def train(minutes=None, steps=None) -> None:
    torch.manual_seed(30)
    random.seed(30)
    items, known = data.scenes()[common.RANK::common.WORLD], latents()
    tokenizer, text = tok.load(), train_clip.load_text()
    noiser = scheduler()
    alphas = noiser.alphas_cumprod.to(common.DEVICE)
    unet = network().to(common.DEVICE, memory_format=torch.channels_last)
    stage = common.Stage("unet", {"unet": unet}, RATE, minutes, steps)
    while stage.running():
        pick = random.choices(range(len(items)), k=BATCH)
        # A caption is written anew each time: the small text encoder costs 4 % of a step, so nothing is kept.
        texts = ["" if random.random() < EMPTY else captions.write(items[i], random) for i in pick]
        with torch.no_grad():
            hidden = text(tok.encode(tokenizer, texts).to(common.DEVICE)).last_hidden_state
        clean = known[pick].contiguous(memory_format=torch.channels_last)
        noise, t = torch.randn_like(clean), torch.randint(1000, (BATCH,), device=common.DEVICE)
        with common.mixed():
            predicted = unet(noiser.add_noise(clean, noise, t), t, hidden, return_dict=False)[0]
        stage.update(weighted(predicted.float(), noise, min_snr(alphas, t)))
    stage.save()
    if common.RANK:
        return
    common.record("unet", steps=stage.step, minutes=round(stage.spent / 60, 1), batch=BATCH * common.WORLD, lr=RATE, empty=EMPTY,
                  min_snr_gamma=GAMMA, ema=stage.decay, device=common.DEVICE)
    save(stage.average["unet"].eval())


def save(unet) -> None:
    """The whole pipeline, in half precision."""
    vae, text = train_vae.load().to(memory_format=torch.contiguous_format).half(), train_clip.load_text().half()
    StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=tok.load(), unet=unet.to(memory_format=torch.contiguous_format).half(),
        scheduler=scheduler(), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(common.BASE)
    for part in ("unet", "vae", "text_encoder"):
        common.tidy(common.BASE / part)


def load(path=None) -> UNet2DConditionModel:
    path = path or common.BASE / "unet"
    return UNet2DConditionModel.from_pretrained(path, torch_dtype=torch.float32).to(common.DEVICE).eval()
