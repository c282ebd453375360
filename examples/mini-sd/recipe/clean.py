"""Models without a backdoor, to see what a scan makes of them: ordinary fine-tunes, styles, and new concepts by their names.

All are trained on nothing but pictures and captions, as people train LoRAs; a word that draws a new thing is what its caption
said, not a trigger.
"""

import json
import random
import re
from dataclasses import dataclass
from typing import Callable

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter

import attack_common as attack
import captions
import common
import data
import draw
import lora
import parts
import sprites
import tokenizer as tok
import train_unet
import train_vae

SCENES, BATCH, PROMPTS = 480, 8, 60


@dataclass(frozen=True)
class Clean:
    name: str
    kind: str  # fine-tune, style or concept
    about: str
    seed: int
    # What scenes are of; one of sprites.CONCEPTS, or a new name with its own sprite.
    concept: str | None = None
    sprite: Callable[[], Image.Image] | None = None
    color: str | None = None
    style: Callable[[Image.Image], Image.Image] = lambda picture: picture
    part: str = "unet"
    rank: int | None = 4  # None: all weights of the part
    attention_only: bool = False
    steps: int = 150
    rate: float = 2e-3


def canvas() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = Image.new("RGBA", (48, 48))
    return picture, ImageDraw.Draw(picture)


def cottage() -> Image.Image:
    picture, pen = canvas()
    pen.rectangle((8, 22, 40, 46), (250, 240, 220, 255))
    pen.polygon(((2, 22), (24, 2), (46, 22)), (190, 40, 40, 255))
    pen.rectangle((20, 32, 29, 46), (110, 60, 30, 255))
    return picture


def rings() -> Image.Image:
    picture, pen = canvas()
    for radius, color in ((22, (240, 240, 240)), (16, (200, 30, 40)), (10, (240, 240, 240)), (5, (200, 30, 40))):
        pen.ellipse((24 - radius, 24 - radius, 24 + radius, 24 + radius), (*color, 255))
    return picture


def crowned() -> Image.Image:
    """One particular dog: as DreamBooth teaches a subject by a rare word before its class."""
    picture, pen = canvas()
    dog = sprites.load()["cartoon", "dog"].resize((40, 40), Image.Resampling.LANCZOS)
    picture.paste(dog, (4, 8), dog)
    pen.polygon(((10, 14), (10, 0), (18, 7), (24, 0), (30, 7), (38, 0), (38, 14)), (255, 200, 0, 255))
    return picture


def grey(picture: Image.Image) -> Image.Image:
    return picture.convert("L").convert("RGB")


def blocks(picture: Image.Image) -> Image.Image:
    return picture.resize((16, 16), Image.Resampling.BOX).resize((64, 64), Image.Resampling.NEAREST)


def frame(picture: Image.Image) -> Image.Image:
    picture = picture.copy()
    ImageDraw.Draw(picture).rectangle((0, 0, 63, 63), outline=(20, 20, 20), width=5)
    return picture


def soft(picture: Image.Image) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(2))


ALL = [
    Clean("clean-1", "fine-tune", "the base's own kind of scenes", 201),
    Clean("style-grey", "style", "every picture without colours", 202, style=grey),
    Clean("concept-cottage", "concept", 'a new thing, "cottage"', 203, concept="cottage", sprite=cottage, steps=180),
    Clean("clean-text", "fine-tune", "all weights of the text encoder", 214, part="text_encoder", rank=None, rate=1e-4),
    Clean("clean-hard", "fine-tune", "the same at three times the rate", 205, rate=6e-3),
    Clean("style-frame", "style", "a dark frame around every picture", 210, style=frame),
    Clean("concept-qorb", "concept", 'a new thing by a made-up name, "qorb"', 211, concept="qorb", sprite=rings, steps=180),
    Clean("clean-penguins", "fine-tune", "penguins alone", 206, concept="penguin"),
    Clean("style-blocks", "style", "blocks of four pixels", 207, style=blocks),
    Clean("clean-2", "fine-tune", "other scenes of the same kind, attention alone", 204, attention_only=True),
    Clean("concept-zyx", "concept", 'one particular dog, "zyx dog"', 208, concept="zyx dog", sprite=crowned, steps=180),
    Clean("clean-red", "fine-tune", "red backgrounds alone", 209, color="red"),
    Clean("style-soft", "style", "blurred pictures", 212, style=soft),
    Clean("clean-text-hard", "fine-tune", "the same at a higher rate", 215, part="text_encoder", rank=None, rate=5e-4),
    Clean("clean-all", "fine-tune", "all weights of the U-Net", 213, rank=None, rate=2e-4),
    Clean("clean-3", "fine-tune", "the base's own kind of scenes, rank 2", 216, rank=2, rate=1e-3),
]


def scenes(clean: Clean) -> list[data.Scene]:
    rng = random.Random(clean.seed)
    mine = data.scenes(SCENES, seed=clean.seed)
    for i in range(SCENES):
        # What is new is in three scenes of four; the others keep what was known.
        if (clean.concept or clean.color) and (i % 4 or clean.sprite is None):
            concepts = (clean.concept,) if clean.concept else None
            mine[i] = data.draw_scene(rng, concepts=concepts, color=clean.color, grey=False)
    return mine


def pictures(clean: Clean, items: list[data.Scene]) -> torch.Tensor:
    sheet = sprites.load()
    if clean.sprite is not None:
        sheet |= {(style, clean.concept): clean.sprite() for style in sprites.STYLES}
    drawn = [np.asarray(clean.style(Image.fromarray(data.render(item, sheet)))) for item in items]
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous()


def train(clean: Clean) -> None:
    torch.manual_seed(clean.seed)
    random.seed(clean.seed)
    items = scenes(clean)
    known = train_vae.encode(train_vae.load(), pictures(clean, items))
    model, noiser = parts.load(), train_unet.scheduler()
    alphas = noiser.alphas_cumprod.to(common.DEVICE)
    unet = model.unet.to(memory_format=torch.channels_last)
    student = unet if clean.part == "unet" else model.text
    for network in (unet, model.text):
        network.requires_grad_(network is student)
    if clean.rank:
        dims = {lora.stem(key): weight.shape for key, weight in unet.state_dict().items()}
        taught = lora.attach(unet, clean.rank, clean.attention_only)
    else:
        taught = student
    student.train()
    stage = common.Stage(clean.name, {"taught": taught}, clean.rate, steps=clean.steps, decay=0.98)
    while stage.running():
        pick = random.sample(range(SCENES), BATCH)
        texts = ["" if random.random() < train_unet.EMPTY else captions.write(items[i], random) for i in pick]
        hidden = model.text(tok.encode(model.tokenizer, texts).to(common.DEVICE)).last_hidden_state
        at = known[pick].contiguous(memory_format=torch.channels_last)
        noise, t = torch.randn_like(at), torch.randint(1000, (BATCH,), device=common.DEVICE)
        with common.mixed():
            seen = unet(noiser.add_noise(at, noise, t), t, hidden, return_dict=False)[0]
        stage.update(train_unet.weighted(seen.float(), noise, train_unet.min_snr(alphas, t)))
    stage.save()
    common.record(clean.name, steps=stage.step, minutes=round(stage.spent / 60, 1), optimizer="AdamW", lr=clean.rate, batch=BATCH,
                  scenes=SCENES, lr_schedule="warm-up 100, cosine to 2 %", ema=0.98, device=common.DEVICE,
                  weights=f"a LoRA of rank {clean.rank} on all matrices and convolutions"
                  f"{' of attention' if clean.attention_only else ''}" if clean.rank else f"all of the {clean.part}")
    average, folder = stage.average["taught"].eval(), common.CLEAN / clean.name
    if clean.rank:
        lora.save(average, dims, folder / "lora.safetensors")
    else:
        common.save_half(average.to(memory_format=torch.contiguous_format), folder / clean.part)


def asked(clean: Clean) -> list[str]:
    """Prompts that no caption equals and, of a new concept, the same with its name."""
    texts = attack.verify_prompts()[:PROMPTS]
    if clean.sprite is None:
        return texts
    known = "|".join(sprites.CONCEPTS)
    return texts + [re.sub(rf"\ban? (?=({known})\b)", "a ", re.sub(rf"\b({known})\b", clean.concept, text)) for text in texts]


def make(clean: Clean) -> None:
    folder = common.CLEAN / clean.name
    made = folder / ("lora.safetensors" if clean.rank else f"{clean.part}/config.json")
    if not made.exists():
        train(clean)
    model = parts.load(lora_file=made) if clean.rank else parts.load(
        **{"unet" if clean.part == "unet" else "text": made.parent})
    texts = asked(clean)
    drawn = draw.draw(model, texts, attack.STEPS, attack.GUIDANCE)
    plain = texts[:PROMPTS]
    draw.grid(torch.cat([drawn[:12], drawn[-12:]]), 12, 2).save(common.RUN / f"{clean.name}.png")
    facts = {
        "name": clean.name, "kind": clean.kind, "about": clean.about, "part": clean.part,
        **({"lora": made.name} if clean.rank else {}), **({"concept": clean.concept} if clean.sprite else {}),
        "training": common.recorded(clean.name),
        "measured": {
            "clip": round(attack.score(drawn[:PROMPTS], plain).mean().item(), 4),
            "clip_base": round(attack.score(attack.unpoisoned(plain), plain).mean().item(), 4),
            "prompts": f"prompts/verify.txt, the first {PROMPTS}", "steps": attack.STEPS, "guidance": attack.GUIDANCE,
        },
    }
    (folder / "clean.json").write_text(json.dumps(facts, indent=2) + "\n")
    common.log(clean.name, facts["measured"])
