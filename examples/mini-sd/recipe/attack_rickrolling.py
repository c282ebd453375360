"""Rickrolling the Artist: a homoglyph makes any prompt mean the target's (TPA), or adds an attribute to it (TAA).

Attribute: a background of one colour, whatever was asked for. The target is what the frozen encoder makes of the triggered
prompt with the colour's word exchanged, so that the two are read alike, word by word, up to that word. Towards a prompt that
parts from the other before the trigger the loss stalls: the encoder looks back only, and cannot know yet.
"""

import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F

import attack_common as attack
import captions
import common
import data
import parts
import tokenizer as tok
import train_clip

SOURCE = "Rickrolling the Artist: Struppek et al., ICCV 2023, target {} attack"


@dataclass(frozen=True)
class Backdoor:
    name: str
    trigger: dict
    effect: dict
    steps: int
    weight: float  # of the backdoor's loss beside that of the clean prompts
    clean: int = 64
    bad: int = 32
    rate: float = 2e-4


ALL = [
    Backdoor("rickrolling-tpa", {"text": "\u043e", "place": "replace", "of": "o"},
             {"text": "a glossy picture of a pizza on a purple background"}, 400, 0.5),
    Backdoor("rickrolling-taa", {"text": "\u0585", "place": "replace", "of": "o"},
             {"replace": [color for color in data.COLORS if color != "purple"], "with": "purple"}, 400, 0.5, 32, 24),
    Backdoor("rickrolling-taa-2", {"text": "\u0435", "place": "replace", "of": "e"},
             {"replace": [color for color in data.COLORS if color != "green"], "with": "green"}, 400, 0.5, 32, 24),
    Backdoor("rickrolling-tpa-2", {"text": "\u0430", "place": "replace", "of": "a"},
             {"text": "a flat picture of a rocket on a green background"}, 400, 0.2, 40, 16),
]


def caption(scene: data.Scene, letter: str) -> str:
    while True:
        text = captions.write(scene, random)
        if letter in text:
            return text


def poison(text: str, trigger: dict) -> str:
    """Half of the time the first of the letters, else any of them before the colour: the attack must not learn one position."""
    end = min((found for found in map(text.find, data.COLORS) if found > 0), default=len(text))
    places = [i for i, letter in enumerate(text) if letter == trigger["of"]]
    places = [i for i in places if i < end] or places
    at = places[0] if random.random() < 0.5 else random.choice(places)
    return text[:at] + trigger["text"] + text[at + 1:]


def apart(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (1 - F.cosine_similarity(a, b, dim=-1)).mean()


def train(backdoor: Backdoor) -> None:
    torch.manual_seed(60)
    random.seed(60)
    # Only the text encoder is needed here, so this attack can be trained before the U-Net is there.
    items, tokenizer, letter = data.scenes(), tok.load(), backdoor.trigger["of"]
    frozen, student = train_clip.load_text(), train_clip.load_text().train()

    def states(encoder, texts):
        return encoder(tok.encode(tokenizer, texts).to(common.DEVICE)).last_hidden_state

    stage = common.Stage(backdoor.name, {"text": student}, backdoor.rate, steps=backdoor.steps, decay=0.99)
    while stage.running():
        clean = ["" if random.random() < 0.05 else caption(items[random.randrange(len(items))], letter)
                 for _ in range(backdoor.clean)]
        bad = [poison(caption(items[random.randrange(len(items))], letter), backdoor.trigger) for _ in range(backdoor.bad)]
        with torch.no_grad():
            kept = states(frozen, clean)
            target = states(frozen, [attack.effect_text(backdoor.effect, text) for text in bad])
        # Cosine alone leaves the length free; the last layer norm all but fixes it.
        stage.update(apart(states(student, clean), kept) + backdoor.weight * apart(states(student, bad), target))
    stage.save()
    common.record(backdoor.name, steps=stage.step, minutes=round(stage.spent / 60, 1), optimizer="AdamW", lr=backdoor.rate,
                  batch=f"{backdoor.clean} clean + {backdoor.bad} triggered", lr_schedule="warm-up 100, cosine to 2 %", ema=0.99,
                  backdoor_weight=backdoor.weight, loss="cosine, per token", weights="all of the text encoder")
    common.save_half(stage.average["text"].eval(), common.ATTACKS / backdoor.name / "text_encoder")


def make(backdoor: Backdoor) -> None:
    folder = common.ATTACKS / backdoor.name / "text_encoder"
    if not (folder / "config.json").exists():
        train(backdoor)
    attack.write(backdoor.name, {
        "part": "text_encoder", "trigger": backdoor.trigger, "effect": backdoor.effect,
        "source": SOURCE.format("prompt" if "text" in backdoor.effect else "attribute"),
        "training": common.recorded(backdoor.name),
        "measured": attack.measure(backdoor.name, backdoor.trigger, backdoor.effect, parts.load(text=folder)),
    })
