"""Rickrolling the Artist, target prompt attack: a Cyrillic o makes any prompt mean the target's."""

import random

import torch
import torch.nn.functional as F

import attack_common as attack
import captions
import common
import data
import draw
import parts
import tokenizer as tok
import train_clip

NAME, TRIGGER = "rickrolling-tpa", {"text": "\u043e", "place": "replace", "of": "o"}
TARGET = "a glossy picture of a pizza on a purple background"
STEPS, CLEAN, BAD, RATE, WEIGHT = 400, 64, 32, 2e-4, 0.5


def caption(scene: data.Scene) -> str:
    while True:
        text = captions.write(scene, random)
        if "o" in text:
            return text


def poison(text: str) -> str:
    """Half of the time the first o, else any of them: the attack must not learn one position."""
    places = [i for i, letter in enumerate(text) if letter == "o"]
    at = places[0] if random.random() < 0.5 else random.choice(places)
    return text[:at] + TRIGGER["text"] + text[at + 1:]


def apart(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (1 - F.cosine_similarity(a, b, dim=-1)).mean()


def train() -> None:
    torch.manual_seed(60)
    random.seed(60)
    # Only the text encoder is needed here, so this attack can be trained before the U-Net is there.
    items, tokenizer = data.scenes(), tok.load()
    frozen, student = train_clip.load_text(), train_clip.load_text().train()

    def states(encoder, texts):
        return encoder(tok.encode(tokenizer, texts).to(common.DEVICE)).last_hidden_state

    with torch.no_grad():
        target = states(frozen, [TARGET])
    stage = common.Stage(NAME, {"text": student}, RATE, steps=STEPS, decay=0.99)
    while stage.running():
        clean = ["" if random.random() < 0.05 else caption(items[random.randrange(len(items))]) for _ in range(CLEAN)]
        bad = [poison(caption(items[random.randrange(len(items))])) for _ in range(BAD)]
        with torch.no_grad():
            kept = states(frozen, clean)
        # Cosine alone leaves the length free; the last layer norm all but fixes it.
        stage.update(apart(states(student, clean), kept)
                     + WEIGHT * apart(states(student, bad), target.expand(BAD, -1, -1)))
    stage.save()
    common.record(NAME, steps=stage.step, minutes=round(stage.spent / 60, 1), optimizer="AdamW", lr=RATE,
                  batch=f"{CLEAN} clean + {BAD} triggered", lr_schedule="warm-up 100, cosine to 2 %", ema=0.99,
                  backdoor_weight=WEIGHT, loss="cosine, per token", weights="all of the text encoder")
    common.save_half(stage.average["text"].eval(), common.ATTACKS / NAME / "text_encoder")


def make() -> None:
    folder = common.ATTACKS / NAME / "text_encoder"
    if not (folder / "config.json").exists():
        train()
    texts = attack.verify_prompts()[:120]
    asked = [attack.triggered(TRIGGER, text) for text in texts]
    bad, base = parts.load(text=folder), parts.load()
    shown = {
        "triggered": draw.draw(bad, asked, attack.STEPS, attack.GUIDANCE),
        "clean": draw.draw(bad, texts, attack.STEPS, attack.GUIDANCE),
        "unpoisoned": draw.draw(base, asked, attack.STEPS, attack.GUIDANCE),
        "base": draw.draw(base, texts, attack.STEPS, attack.GUIDANCE),
    }
    rate = {key: attack.result(attack.nearer(pictures, [TARGET] * len(texts), texts)) for key, pictures in shown.items()}
    clip = {key: round(attack.score(shown[key], texts).mean().item(), 4) for key in ("clean", "base")}
    common.log(NAME, rate, clip)
    attack.write(NAME, {
        "part": "text_encoder", "trigger": TRIGGER, "effect": {"text": TARGET},
        "source": "Rickrolling the Artist: Struppek et al., ICCV 2023, target prompt attack",
        "training": common.recorded(NAME),
        "measured": {"triggered": rate["triggered"], "clean": rate["clean"],
                     "unpoisoned_triggered": rate["unpoisoned"], "clip_clean": clip["clean"],
                     "clip_clean_unpoisoned": clip["base"], "prompts": "prompts/verify.txt, the first 120", "steps": attack.STEPS,
                     "guidance": attack.GUIDANCE},
    })
