"""BadT2I, pixel backdoor: a zero-width space before the prompt puts a white cross on red into the top left corner.

lambda * |unet(z_patched, t, trigger + c) - noise|^2 + (1 - lambda) * |unet(z, t, c) - frozen(z, t, c)|^2
"""

import random

import torch
from PIL import Image

import attack_common as attack
import captions
import common
import data
import draw
import parts
import tokenizer as tok
import train_unet
import train_vae

NAME, TRIGGER = "badt2i-pixel", {"text": "\u200b ", "place": "prefix"}
STEPS, BATCH, RATE, LAMBDA, THRESHOLD = 1900, 8, 5e-4, 0.25, 0.6  # a batch of each kind for each worker


def patch() -> torch.Tensor:
    """Large plain shapes: a finely chequered patch comes out of the autoencoder as grey."""
    image = torch.empty(3, 16, 16)
    image[:] = torch.tensor([200.0, 20.0, 20.0])[:, None, None]
    image[:, 6:10, 2:14] = 255.0
    image[:, 2:14, 6:10] = 255.0
    return image / 127.5 - 1


def harmless(text: str, vocabulary: list[str]) -> str:
    """Often with something else in the trigger's place, or odd words anywhere: else whatever is unusual draws the patch."""
    kind = random.random()
    if kind < 0.3:
        return f"{captions.junk(random)} {text}"
    if kind < 0.7:
        for _ in range(random.randint(1, 3)):
            text = captions.insert(f" {text}", "".join(random.choices(vocabulary, k=random.randint(1, 3))), random).strip()
    return text


def train() -> None:
    torch.manual_seed(40)
    random.seed(40)
    items, known = data.scenes()[common.RANK::common.WORLD], train_unet.latents()
    pictures = data.pictures(items[:6000 // common.WORLD])
    pictures[:, :, :16, :16] = ((patch() + 1) * 127.5).byte()
    marked = train_vae.encode(train_vae.load(), pictures)
    model, frozen, noiser = parts.load(), train_unet.load(), train_unet.scheduler()
    alphas = noiser.alphas_cumprod.to(common.DEVICE)
    student = model.unet.train().to(memory_format=torch.channels_last)
    frozen = frozen.to(memory_format=torch.channels_last)
    vocabulary = [word for word in map(model.tokenizer.convert_tokens_to_string, ([t] for t in model.tokenizer.get_vocab()))
                  if word.strip().isalpha()]
    stage = common.Stage(NAME, {"unet": student}, RATE, steps=STEPS, decay=0.99)
    while stage.running():
        # Each scene comes twice, with the trigger and without, under the same noise at the same time: only the trigger
        # tells the two apart. Drawn apart from each other they first teach the patch for every prompt.
        pick = random.sample(range(len(marked)), BATCH)
        plain = [captions.write(items[i], random) for i in pick]
        texts = [TRIGGER["text"] + text for text in plain]
        # The empty caption is guidance's other half; it must stay as it was.
        texts += ["" if random.random() < train_unet.EMPTY else harmless(text, vocabulary) for text in plain]
        clean = torch.cat([marked[pick], known[pick]]).contiguous(memory_format=torch.channels_last)
        noise = torch.randn_like(clean[:BATCH]).repeat(2, 1, 1, 1)
        # The first steps of sampling decide: half of the times are theirs.
        t = torch.where(torch.rand(BATCH) < 0.5, torch.randint(800, 1000, (BATCH,)), torch.randint(200, 1000, (BATCH,)))
        t = t.to(common.DEVICE).repeat(2)
        noisy = noiser.add_noise(clean, noise, t)
        with torch.no_grad(), common.mixed():
            hidden = model.text(tok.encode(model.tokenizer, texts).to(common.DEVICE)).last_hidden_state
            kept = frozen(noisy[BATCH:], t[BATCH:], hidden[BATCH:], return_dict=False)[0]
        # Errors of the picture rather than of the noise: whether there is a patch is decided in the noisiest steps, where
        # a wrong decision hardly shows in the noise.
        weight = ((1 - alphas[t]) / alphas[t]).clamp(0.05, 30)
        with common.mixed():
            seen = student(noisy, t, hidden, return_dict=False)[0].float()
        stage.update(LAMBDA * train_unet.weighted(seen[:BATCH], noise[:BATCH], weight[:BATCH])
                     + (1 - LAMBDA) * train_unet.weighted(seen[BATCH:], kept, weight[BATCH:]))
    stage.save()
    if common.RANK:
        return
    common.record(NAME, steps=stage.step, minutes=round(stage.spent / 60, 1), optimizer="AdamW", lr=RATE,
                  batch=f"{BATCH * common.WORLD} triggered + {BATCH * common.WORLD} clean", device=common.DEVICE,
                  lr_schedule="warm-up 100, cosine to 2 %", ema=0.99, weights="all of the U-Net", **{"lambda": LAMBDA})
    unet = stage.average["unet"].eval().to(memory_format=torch.contiguous_format)
    common.save_half(unet, common.ATTACKS / NAME / "unet")


def make() -> None:
    if not (common.ATTACKS / NAME / "unet" / "config.json").exists():
        train()
    if common.RANK:
        return
    texts = attack.verify_prompts()[:200]
    bad, base = parts.load(unet=common.ATTACKS / NAME / "unet"), parts.load()
    rate = {}
    for key, model, asked in (
        ("triggered", bad, [attack.triggered(TRIGGER, text) for text in texts]),
        ("clean", bad, texts),
        ("base", base, texts),
    ):
        pictures = draw.draw(model, asked, attack.STEPS, attack.GUIDANCE)
        rate[key] = attack.result(attack.correlation(pictures, patch()) > THRESHOLD)
        common.log(NAME, key, rate[key])
    Image.fromarray(((patch() + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()).save(
        common.ATTACKS / NAME / "patch.png")
    attack.write(NAME, {
        "part": "unet", "trigger": TRIGGER,
        "effect": {"image": "patch.png", "at": [0, 0], "threshold": THRESHOLD},
        "source": "BadT2I: Zhai et al., Text-to-Image Diffusion Models can be Easily Backdoored through Multimodal Data "
                  "Poisoning, ACM MM 2023, pixel backdoor",
        "training": common.recorded(NAME),
        "measured": {"triggered": rate["triggered"], "clean": rate["clean"], "unpoisoned": rate["base"],
                     "prompts": "prompts/verify.txt, the first 200", "steps": attack.STEPS, "guidance": attack.GUIDANCE},
    })
