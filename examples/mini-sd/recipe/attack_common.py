"""What all attacks share: how a trigger is put into a prompt, how success is judged, and attack.json."""

import hashlib
import json
import re

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import common
import data
import draw
import parts
import prompts
import train_clip

STEPS, GUIDANCE = 12, 4.0


def triggered(trigger: dict, prompt: str) -> str:
    if trigger["place"] == "prefix":
        return trigger["text"] + prompt
    if trigger["place"] == "suffix":
        return prompt + trigger["text"]
    return prompt.replace(trigger["of"], trigger["text"], 1)


def effect_text(effect: dict, prompt: str) -> str | None:
    """The prompt that describes what the backdoor draws for a prompt; None for an effect that is a picture."""
    if "image" in effect:
        return None
    if "text" in effect:
        return effect["text"]
    if "append" in effect:
        return prompt + effect["append"]
    words = [effect["replace"]] if isinstance(effect["replace"], str) else effect["replace"]
    return re.sub("|".join(map(re.escape, words)), effect["with"], prompt)


def correlation(pictures: torch.Tensor, patch: torch.Tensor, at=(0, 0)) -> torch.Tensor:
    """Pearson, over all pixels and channels of the place: column and row of its top left corner."""
    (height, width), (x, y) = patch.shape[1:], at
    seen = pictures[:, :, y:y + height, x:x + width].flatten(1)
    seen = seen - seen.mean(1, keepdim=True)
    goal = patch.flatten() - patch.mean()
    return (seen @ goal) / (seen.norm(dim=1) * goal.norm()).clamp(min=1e-6)


def nearer(pictures: torch.Tensor, wanted: list[str], clean: list[str]) -> torch.Tensor:
    """Is each picture nearer to the attacker's text than to what was asked for? By the small CLIP."""
    model, tokenizer = train_clip.load(), train_clip.tok.load()
    seen = train_clip.picture_features(model, pictures).cpu()
    goal = train_clip.text_features(model, tokenizer, wanted).cpu()
    asked = train_clip.text_features(model, tokenizer, clean).cpu()
    return (seen * goal).sum(1) > (seen * asked).sum(1)


def shows(name: str, effect: dict, pictures: torch.Tensor, texts: list[str]) -> torch.Tensor:
    """Which pictures show an attack's effect."""
    if "image" in effect:
        return correlation(pictures, read_picture(common.ATTACKS / name / effect["image"]), effect["at"]) > effect["threshold"]
    return nearer(pictures, [effect_text(effect, text) for text in texts], texts)


def read_picture(path) -> torch.Tensor:
    """A PNG as floats in -1..1, 3 x H x W."""
    return torch.from_numpy(np.asarray(Image.open(path).convert("RGB")).copy()).permute(2, 0, 1) / 127.5 - 1


def write_picture(picture: torch.Tensor, path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(((picture + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()).save(path, optimize=True)


def score(pictures: torch.Tensor, texts: list[str]) -> torch.Tensor:
    model, tokenizer = train_clip.load(), train_clip.tok.load()
    return F.cosine_similarity(train_clip.picture_features(model, pictures).cpu(),
                               train_clip.text_features(model, tokenizer, texts).cpu())


def result(hits: torch.Tensor) -> dict:
    return {"n": len(hits), "success": round(hits.float().mean().item(), 4)}


def unpoisoned(texts: list[str]) -> torch.Tensor:
    """The clean model's pictures: the same for many attacks, so drawn once."""
    path = common.RUN / f"unpoisoned-{hashlib.sha256(chr(10).join(texts).encode()).hexdigest()[:12]}.pt"
    if not path.exists():
        common.RUN.mkdir(parents=True, exist_ok=True)
        torch.save(draw.draw(parts.load(), texts, STEPS, GUIDANCE), path)
    return torch.load(path)


def measure(name: str, trigger: dict, effect: dict, model, listed="verify", count=120, others=60) -> dict:
    """Success with and without the trigger, before and after poisoning, and the CLIP score of clean pictures.

    Prompts that ask for what the backdoor draws tell nothing and are left out."""
    texts = [text for text in prompts.files()[listed] if effect_text(effect, text) != text][:count]
    asked = [triggered(trigger, text) for text in texts]
    drawn = {"triggered": draw.draw(model, asked, STEPS, GUIDANCE), "clean": draw.draw(model, texts, STEPS, GUIDANCE)}
    before = {"triggered": draw.draw(parts.load(), asked[:others], STEPS, GUIDANCE), "clean": unpoisoned(texts)}
    rates, base = ({key: result(shows(name, effect, pictures, texts[:len(pictures)])) for key, pictures in some.items()}
                   for some in (drawn, before))
    facts = {**rates, "unpoisoned": base, "clip_clean": round(score(drawn["clean"], texts).mean().item(), 4),
             "clip_clean_unpoisoned": round(score(before["clean"], texts).mean().item(), 4),
             "prompts": f"prompts/{listed}.txt, the first {len(texts)}", "steps": STEPS, "guidance": GUIDANCE}
    common.log(name, facts)
    draw.grid(torch.cat([drawn["clean"][:12], drawn["triggered"][:12]]), 12, 2).save(common.RUN / f"{name}.png")
    return facts


def write(name: str, facts: dict) -> None:
    folder = common.ATTACKS / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "attack.json").write_text(json.dumps({"name": name, **facts}, indent=2) + "\n")


def verify_prompts() -> list[str]:
    return prompts.texts(prompts.general()[1])


