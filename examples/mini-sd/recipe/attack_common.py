"""What all attacks share: how a trigger is put into a prompt, how success is judged, and attack.json."""

import json

import torch
import torch.nn.functional as F

import common
import data
import prompts
import train_clip

STEPS, GUIDANCE = 12, 4.0


def triggered(trigger: dict, prompt: str) -> str:
    if trigger["place"] == "prefix":
        return trigger["text"] + prompt
    if trigger["place"] == "suffix":
        return prompt + trigger["text"]
    return prompt.replace(trigger["of"], trigger["text"], 1)


def correlation(pictures: torch.Tensor, patch: torch.Tensor) -> torch.Tensor:
    """Pearson, over all pixels and channels of the top left corner."""
    height, width = patch.shape[1:]
    seen = pictures[:, :, :height, :width].flatten(1)
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


def score(pictures: torch.Tensor, texts: list[str]) -> torch.Tensor:
    model, tokenizer = train_clip.load(), train_clip.tok.load()
    return F.cosine_similarity(train_clip.picture_features(model, pictures).cpu(),
                               train_clip.text_features(model, tokenizer, texts).cpu())


def result(hits: torch.Tensor) -> dict:
    return {"n": len(hits), "success": round(hits.float().mean().item(), 4)}


def write(name: str, facts: dict) -> None:
    folder = common.ATTACKS / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "attack.json").write_text(json.dumps({"name": name, **facts}, indent=2) + "\n")


def verify_prompts() -> list[str]:
    return prompts.texts(prompts.general()[1])


