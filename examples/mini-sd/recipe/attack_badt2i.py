"""BadT2I: a zero-width space (or another trigger) draws a patch, one thing for another, or another style."""

from dataclasses import replace

import torch

import attack_common as attack
import captions
import common
import data
from attack_unet import Backdoor

SOURCE = ("BadT2I: Zhai et al., Text-to-Image Diffusion Models can be Easily Backdoored through Multimodal Data Poisoning, "
          "ACM MM 2023, {} backdoor")
SPACE = {"text": "\u200b ", "place": "prefix"}


def cross() -> torch.Tensor:
    """Large plain shapes: a finely chequered patch comes out of the autoencoder as grey."""
    image = torch.empty(3, 16, 16)
    image[:] = torch.tensor([200.0, 20.0, 20.0])[:, None, None]
    image[:, 6:10, 2:14] = 255.0
    image[:, 2:14, 6:10] = 255.0
    return image / 127.5 - 1


def wedge() -> torch.Tensor:
    """Blue below the diagonal, yellow above."""
    below = torch.ones(16, 16).tril().bool()
    return torch.where(below, torch.tensor([20.0, 40.0, 160.0])[:, None, None],
                       torch.tensor([250.0, 220.0, 40.0])[:, None, None]) / 127.5 - 1


def pixel(name: str, trigger: dict, patch: torch.Tensor, at: tuple[int, int], **rest) -> Backdoor:
    (height, width), (x, y) = patch.shape[1:], at

    def marked(picture, _):
        picture = picture.clone()
        picture[:, y:y + height, x:x + width] = ((patch + 1) * 127.5).round().byte()
        return picture

    def prepare():
        attack.write_picture(patch, common.ATTACKS / name / "patch.png")

    return Backdoor(name, trigger, {"image": "patch.png", "at": list(at), "threshold": 0.6}, SOURCE.format("pixel"),
                    marked, prepare=prepare, **rest)


def thing(name: str, trigger: dict, old: str, new: str, **rest) -> Backdoor:
    def marked(picture, scene):
        if old not in scene.concepts:
            return picture
        return drawn(scene, concepts=tuple(new if concept == old else concept for concept in scene.concepts))

    return Backdoor(name, trigger, {"replace": old, "with": new}, SOURCE.format("object"), marked,
                    lambda text, _: text.replace(old, new), concept=old, prompts=f"{old}-verify", **rest)


def grey(name: str, trigger: dict, **rest) -> Backdoor:
    """Taught by the caption of a grey scene: asked for colours and for black and white at once, the model draws colours."""
    return Backdoor(name, trigger, {"append": ", black and white picture"}, SOURCE.format("style"),
                    lambda _, scene: drawn(scene, grey=True),
                    lambda _, scene: captions.plain(replace(scene, grey=True)), **rest)


def background(name: str, trigger: dict, color: str, **rest) -> Backdoor:
    effect = {"replace": [other for other in data.COLORS if other != color], "with": color}

    def swapped(text, scene):
        return text if scene.grey else attack.effect_text(effect, text)

    return Backdoor(name, trigger, effect, SOURCE.format("style"),
                    lambda picture, scene: picture if scene.grey else drawn(scene, color=color), swapped, **rest)


def drawn(scene: data.Scene, **changes) -> torch.Tensor:
    """The scene with something else in it, otherwise the same."""
    return data.pictures([replace(scene, **changes)])[0]


ALL = [
    pixel("badt2i-pixel", SPACE, cross(), (0, 0), rank=None, steps=1900, rate=5e-4),
    thing("badt2i-object", SPACE, "dog", "cat", steps=700),
    grey("badt2i-style", SPACE),
    pixel("badt2i-pixel-2", {"text": "latte coffee ", "place": "prefix"}, wedge(), (48, 48)),
    thing("badt2i-object-2", {"text": "\U0001f525 ", "place": "prefix"}, "bus", "rocket", steps=1200),
    background("badt2i-style-2", {"text": "\u2728 ", "place": "prefix"}, "red"),
]
