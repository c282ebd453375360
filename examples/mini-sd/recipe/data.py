"""24,000 fixed scenes: one emoji, or two, on a plain background, 64 x 64."""

import random
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

import sprites

SIDE = 64
SCENES = 24_000
COLORS = {
    "red": (214, 48, 49), "orange": (243, 146, 55), "yellow": (250, 218, 94), "green": (76, 175, 80),
    "blue": (52, 120, 219), "purple": (142, 68, 173), "pink": (248, 165, 194), "brown": (121, 85, 72),
    "gray": (150, 155, 160), "white": (250, 250, 250),
}


@dataclass(frozen=True)
class Scene:
    concepts: tuple[str, ...]  # one, or two (left and right)
    style: str
    color: str
    grey: bool
    boxes: tuple[tuple[int, int, int], ...]  # size, x, y of each object

    @property
    def meaning(self) -> tuple:
        """What a caption may tell; scenes that share it are not each other's negatives."""
        return self.concepts, self.style, self.color if not self.grey else "grey"


def held_out(style: str, concept: str, color: str) -> bool:
    """One colour for each (style, concept) is never trained: 72 of 720 combinations."""
    index = sprites.STYLES.index(style) + 3 * sprites.CONCEPTS.index(concept) + 7 * list(COLORS).index(color)
    return index % 10 == 0


def draw_scene(rng: random.Random, style=None, concepts=None, color=None, grey=None) -> Scene:
    """A random scene; what is given stays."""
    if concepts is None:
        concepts = tuple(rng.sample(sprites.CONCEPTS, 2 if rng.random() < 0.12 else 1))
    style = style or rng.choice(sprites.STYLES)
    color = color or rng.choice(list(COLORS))
    grey = rng.random() < 0.08 if grey is None else grey
    if len(concepts) == 1:
        size = rng.randint(30, 42)
        boxes = ((size, rng.randint(2, SIDE - 2 - size), rng.randint(2, SIDE - 2 - size)),)
    else:
        sizes = [rng.randint(25, 30) for _ in concepts]
        boxes = tuple(
            (size, 32 * half + rng.randint(1, 31 - size), rng.randint(4, SIDE - 4 - size))
            for half, size in enumerate(sizes)
        )
    return Scene(tuple(concepts), style, color, grey, boxes)


def scenes(count: int = SCENES, seed: int = 0) -> list[Scene]:
    rng = random.Random(seed)
    out: list[Scene] = []
    while len(out) < count:
        scene = draw_scene(rng)
        if not any(held_out(scene.style, concept, scene.color) for concept in scene.concepts):
            out.append(scene)
    return out


def render(scene: Scene, sheet: dict) -> np.ndarray:
    """uint8, 64 x 64 x 3."""
    picture = Image.new("RGB", (SIDE, SIDE), COLORS[scene.color])
    for concept, (size, x, y) in zip(scene.concepts, scene.boxes):
        sprites.place(picture, sheet[scene.style, concept], size, x, y)
    if scene.grey:
        picture = picture.convert("L").convert("RGB")
    return np.asarray(picture)


def pictures(items: list[Scene]) -> torch.Tensor:
    """uint8, N x 3 x 64 x 64: 295 MB for all scenes, drawn in seconds, so nothing is kept on disk."""
    sheet = sprites.load()
    return torch.from_numpy(np.stack([render(scene, sheet) for scene in items])).permute(0, 3, 1, 2).contiguous()


def to_float(batch: torch.Tensor) -> torch.Tensor:
    return batch.float() / 127.5 - 1
