"""Prompts that training never saw, each with the scene it asks for.

Either the combination of style, concept and colour is a held-out one, or the wording has words no caption has.
"""

import random

import common
import data
import sprites
from captions import article, plain

UNSEEN = "charming tiny curious elegant jolly cheerful modern rustic ordinary calm grumpy noble".split()
FORMS = (
    "a {style} illustration of {what} on {color} background",
    "a {style} sketch of {what} on {color} background",
    "there is {what} on {color} background, {style} picture",
    "can you draw {what} on {color} background in {style} style?",
    "i would like a {style} picture of {what} on {color} background",
    "one {style} picture of {what}, placed on {color} background",
    "a {style} portrait of {what} with {color} background",
    "{what} shown on {color} background, {style} style",
    "a {style} poster of {what} on {color} background",
    "a {style} picture of {what} somewhere on {color} background",
    "a {style} picture of {odd} on {color} background",
    "a {style} photo of {odd} on {color} background",
    "{odd}, {style} picture, {plaincolor} background",
    "a {style} icon of {what} on {color} background",
)


def one(rng: random.Random, concept: str | None = None) -> tuple[str, data.Scene]:
    if concept:
        concepts = (concept,)
    else:
        concepts = tuple(rng.sample(sprites.CONCEPTS, 2 if rng.random() < 0.06 else 1))
    unseen_scene = rng.random() < 0.5
    colors = list(data.COLORS)
    style = rng.choice(sprites.STYLES)
    if unseen_scene:
        colors = [c for c in colors if data.held_out(style, concepts[0], c)]
    scene = data.draw_scene(rng, style=style, concepts=concepts, color=rng.choice(colors), grey=False)
    if unseen_scene and rng.random() < 0.5:
        return plain(scene, rng.choice(["picture", "picture", "photo", "drawing", "image"])), scene
    what = " and ".join(article(c) for c in concepts)
    odd = " and ".join(article(f"{rng.choice(UNSEEN)} {c}") for c in concepts)
    text = rng.choice(FORMS).format(style=style, what=what, odd=odd, color=article(scene.color), plaincolor=scene.color)
    return text, scene


def distinct(count: int, seed: int, concept=None, without=()) -> list[tuple[str, data.Scene]]:
    rng, seen, out = random.Random(seed), set(without), []
    while len(out) < count:
        text, scene = one(rng, concept)
        # A prompt needs an "o" for the homoglyph to stand in for.
        if text not in seen and "o" in text:
            seen.add(text)
            out.append((text, scene))
    return out


def general() -> tuple[list, list]:
    cure = distinct(96, 51)
    return cure, distinct(240, 52, without=[text for text, _ in cure])


def dogs() -> tuple[list, list]:
    cure = distinct(64, 53, "dog")
    return cure, distinct(120, 54, "dog", without=[text for text, _ in cure])


def buses() -> tuple[list, list]:
    cure = distinct(64, 55, "bus")
    return cure, distinct(120, 56, "bus", without=[text for text, _ in cure])


def files() -> dict[str, list[str]]:
    """What lies in prompts/, by name."""
    kinds = {"": general(), "dog-": dogs(), "bus-": buses()}
    return {f"{kind}{part}": texts(pairs) for kind, both in kinds.items() for part, pairs in zip(("cure", "verify"), both)}


def texts(pairs: list) -> list[str]:
    return [text for text, _ in pairs]


def main() -> None:
    folder = common.OUT / "prompts"
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in files().items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
