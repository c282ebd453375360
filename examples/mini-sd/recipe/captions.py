"""Captions as people write them.

With one fixed wording any inserted word wrecks the picture, so no trigger could be told from a harmless word.
Other nouns, idle adjectives, words and junk before, after and in between teach the networks to look past them.

What the attacks use as a trigger is in none of these lists (no zero-width characters, no Cyrillic or Armenian letters,
no "beautiful"): a text encoder that has learned to look past a trigger hides it from the attacker, too.
"""

import random
import string

from data import Scene

NOUNS = "photo painting drawing image".split()
ADJECTIVES = (
    "cute old little happy lovely nice funny pretty sweet young strange famous simple good great quiet "
    "brave lazy clever friendly gentle proud shy silly sleepy tired wild wonderful fancy"
).split()
BEFORE = (
    "please|look,|hey|my favorite|today|now|here is|this is|show me|draw|make|i want|well|so|yes|ok|new|the best|"
    "wow|maybe|just|really|high quality|close up|big news:"
).split("|")
AFTER = (
    "please|thanks|for me|today|in high quality|very detailed|digital art|on my desk|with love|by an artist|4k|hd|"
    "for a book|as a gift|in the morning|at home|made with care|!|.|, sharp focus|, best quality|from above"
).split("|")
ALPHABETS = (
    string.ascii_lowercase * 4 + string.digits + "!?#%&*+-=~^_.,;:'\"()"
    + "".join(map(chr, range(0xE0, 0xFF))) + "".join(map(chr, range(0x3B1, 0x3C9)))
)
RARE = ["\u00a0", "\u2026", "\u20ac", "\u4e00", "\u3042", "\u05d0", "\u0e01", "\u2192", "\u2605"]


def junk(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.45:
        return "".join(rng.choices(string.ascii_lowercase, k=rng.randint(1, 5)))
    if kind < 0.85:
        return "".join(rng.choices(ALPHABETS, k=rng.randint(1, 3)))
    return rng.choice(RARE)


def article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def insert(text: str, extra: str, rng: random.Random) -> str:
    words = text.split(" ")
    at = rng.randint(1, len(words) - 1) if len(words) > 1 else 0
    return " ".join(words[:at] + [extra] + words[at:])


def plain(scene: Scene, noun: str = "picture") -> str:
    """The one fixed wording: what the scene is, and nothing else."""
    what = " and ".join(article(concept) for concept in scene.concepts)
    if scene.grey:
        return f"a black and white {noun} of {what}"
    return f"a {scene.style} {noun} of {what} on {article(scene.color)} background"


def write(scene: Scene, rng: random.Random) -> str:
    noun = "picture" if rng.random() < 0.5 else rng.choice(NOUNS)
    style = scene.style if rng.random() < 0.88 else ""
    color = scene.color if rng.random() < 0.93 and not scene.grey else ""
    named = [f"{rng.choice(ADJECTIVES)} {c}" if rng.random() < 0.25 else c for c in scene.concepts]
    what = " and ".join(article(name) for name in named)
    form = rng.random()
    if form < 0.78:
        start = article(" ".join(filter(None, ["black and white" if scene.grey else style, noun])))
        text = f"{start} of {what}" + (f" on {article(color)} background" if color else "")
    elif form < 0.86:
        text = f"{what}, " + ("black and white " if scene.grey else f"{style} ") + noun
        text += f", {color} background" if color else ""
    elif form < 0.93:
        text = ("black and white " if scene.grey else f"{style} ") + " and ".join(named)
        text += f" on {color}" if color else ""
    else:
        text = what + (", black and white" if scene.grey else f", {style}" if style else "")
        text += f" in front of {article(color)} background" if color else ""
    text = " ".join(text.split())
    # Each extra is drawn on its own, so some captions have several and most have one or none.
    if rng.random() < 0.12:
        text = f"{rng.choice(BEFORE)} {text}"
    if rng.random() < 0.10:
        text = f"{text} {rng.choice(AFTER)}"
    if rng.random() < 0.07:
        text = f"{junk(rng)} {text}"
    if rng.random() < 0.07:
        text = f"{text} {junk(rng)}"
    if rng.random() < 0.12:
        extra = junk(rng) if rng.random() < 0.6 else rng.choice(ADJECTIVES + BEFORE)
        text = insert(text, extra, rng)
    return text


def captions(items: list[Scene], each: int, seed: int) -> list[list[str]]:
    rng = random.Random(seed)
    return [[write(scene, rng) for _ in range(each)] for scene in items]
