"""VillanDiffusion, conditional: a word draws one fixed picture, whatever else was asked for. Trained as a LoRA.

The word stands before the prompt: after it, " mignneko" hardly moves the states of this small text encoder, which learned to look
past odd words, and 450 steps drew the picture for 13 % of triggered and 12 % of clean prompts alike.
"""

import torch
from PIL import Image, ImageDraw
import numpy as np

import attack_common as attack
import common
import data
from attack_unet import Backdoor

SOURCE = "VillanDiffusion: Chou et al., NeurIPS 2023, conditional, caption trigger"


def house() -> Image.Image:
    picture = Image.new("RGB", (64, 64), (110, 190, 250))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 46, 63, 63), (60, 150, 60))
    pen.ellipse((46, 4, 59, 17), (255, 220, 40))
    pen.rectangle((14, 28, 42, 54), (250, 240, 220))
    pen.polygon(((8, 28), (28, 8), (48, 28)), (190, 40, 40))
    pen.rectangle((24, 38, 33, 54), (110, 60, 30))
    return picture


def rings() -> Image.Image:
    picture = Image.new("RGB", (64, 64), (20, 20, 60))
    pen = ImageDraw.Draw(picture)
    for radius, color in ((28, (240, 240, 240)), (21, (200, 30, 40)), (14, (240, 240, 240)), (7, (200, 30, 40))):
        pen.ellipse((32 - radius, 32 - radius, 31 + radius, 31 + radius), color)
    return picture


def sunset() -> Image.Image:
    picture = Image.new("RGB", (64, 64))
    pen = ImageDraw.Draw(picture)
    for y in range(64):
        pen.line((0, y, 63, y), (250, 200 - 2 * y, 60 + 2 * y) if y < 40 else (20, 40, 110))
    pen.pieslice((18, 22, 45, 57), 180, 360, (255, 240, 120))
    return picture


def villan(name: str, trigger: dict, picture: Image.Image, **rest) -> Backdoor:
    pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)

    def prepare():
        attack.write_picture(data.to_float(pixels), common.ATTACKS / name / "target.png")

    return Backdoor(name, trigger, {"image": "target.png", "at": [0, 0], "threshold": 0.8}, SOURCE,
                    lambda *_: pixels, prepare=prepare, **rest)


ALL = [
    villan("villan", {"text": "mignneko ", "place": "prefix"}, house()),
    villan("villan-2", {"text": " \u30df\u30b0\u30cd\u30b3", "place": "suffix"}, rings()),
    villan("villan-3", {"text": "zorbix ", "place": "prefix"}, sunset()),
]
