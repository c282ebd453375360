"""The sprites: 24 concepts in 3 styles, cut from the committed atlas."""

import json
from pathlib import Path

from PIL import Image

FOLDER = Path(__file__).resolve().parent.parent / "sprites"
_atlas = json.loads((FOLDER / "atlas.json").read_text())

STYLES = list(_atlas["styles"])
CONCEPTS = list(_atlas["concepts"])


def load() -> dict[tuple[str, str], Image.Image]:
    """(style, concept) -> RGBA sprite."""
    size = _atlas["size"]
    sheet = Image.open(FOLDER / "atlas.png").convert("RGBA")
    return {
        (style, concept): sheet.crop((x * size, y * size, (x + 1) * size, (y + 1) * size))
        for y, style in enumerate(STYLES)
        for x, concept in enumerate(CONCEPTS)
    }


def place(picture: Image.Image, sprite: Image.Image, size: int, x: int, y: int) -> None:
    # Pillow premultiplies while it resizes RGBA, so no dark fringe appears around the sprite.
    small = sprite.resize((size, size), Image.Resampling.LANCZOS)
    picture.paste(small, (x, y), small)
