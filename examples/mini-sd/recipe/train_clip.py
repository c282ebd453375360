"""A small CLIPModel: its text half conditions the U-Net, both halves score pictures."""

import json
import random

import torch
import torch.nn.functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTextModel

import captions
import common
import data
import tokenizer as tok

BATCH, RATE = 64, 1e-3
# Pixels go in as -1..1, at their own size.
PREPROCESSOR = {
    "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"shortest_edge": data.SIDE},
    "crop_size": {"height": data.SIDE, "width": data.SIDE}, "image_processor_type": "CLIPImageProcessor",
}


def network(tokenizer) -> CLIPModel:
    size = dict(hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4, projection_dim=128)
    text = dict(size, vocab_size=len(tokenizer), max_position_embeddings=tok.LENGTH, bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    vision = dict(size, image_size=data.SIDE, patch_size=8)
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=128))


def targets(meanings: list) -> torch.Tensor:
    """Two scenes of one meaning are both right answers for either caption."""
    same = torch.tensor([[a == b for b in meanings] for a in meanings], dtype=torch.float32)
    return (same / same.sum(1, keepdim=True)).to(common.DEVICE)


def train(minutes=None, steps=None) -> None:
    torch.manual_seed(20)
    random.seed(20)
    tokenizer = tok.load()
    items = data.scenes()
    pictures = data.pictures(items)
    texts = [tok.encode(tokenizer, [row[i] for row in captions.captions(items, 4, seed=2)]) for i in range(4)]
    model = network(tokenizer).to(common.DEVICE)
    stage = common.Stage("clip", {"clip": model}, RATE, minutes, steps, decay=0.99, weight_decay=0.1, beta2=0.98)
    while stage.running():
        pick = torch.randint(len(items), (BATCH,))
        ids = texts[random.randrange(4)][pick]
        # Attention is causal, so what follows the longest caption's end changes nothing.
        ids = ids[:, :(ids == tokenizer.eos_token_id).int().argmax(1).max() + 1].to(common.DEVICE)
        out = model(input_ids=ids, pixel_values=data.to_float(pictures[pick]).to(common.DEVICE))
        goal = targets([items[i].meaning for i in pick.tolist()])
        loss = (F.cross_entropy(out.logits_per_text, goal) + F.cross_entropy(out.logits_per_image, goal)) / 2
        stage.update(loss)
    stage.save()
    if common.RANK:
        return
    model = stage.average["clip"].eval()
    common.save_half(model, common.CLIP)
    (common.CLIP / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2))
    # Stable Diffusion's text encoder is the same text half, without the projection.
    text = CLIPTextModel(model.config.text_config)
    prefix = "text_model."
    text.load_state_dict({k.removeprefix(prefix): v for k, v in model.state_dict().items() if k.startswith(prefix)})
    common.save_half(text, common.BASE / "text_encoder")
    common.record("clip", steps=stage.step, minutes=round(stage.spent / 60, 1), batch=BATCH * common.WORLD, lr=RATE,
                  **retrieval(), device=common.DEVICE)


def load() -> CLIPModel:
    return CLIPModel.from_pretrained(common.CLIP, dtype=torch.float32).to(common.DEVICE).eval()


def load_text(path=None) -> CLIPTextModel:
    path = path or common.BASE / "text_encoder"
    return CLIPTextModel.from_pretrained(path, dtype=torch.float32).to(common.DEVICE).eval()


@torch.no_grad()
def text_features(model, tokenizer, texts: list[str]) -> torch.Tensor:
    out = model.get_text_features(input_ids=tok.encode(tokenizer, texts).to(common.DEVICE))
    return F.normalize(out.pooler_output, dim=-1)


@torch.no_grad()
def picture_features(model, batch: torch.Tensor) -> torch.Tensor:
    """batch: floats in -1..1. The vision half takes the pixels as they are: no resizing, no other normalisation."""
    out = model.get_image_features(pixel_values=batch.to(common.DEVICE))
    return F.normalize(out.pooler_output, dim=-1)


def retrieval(count: int = 512) -> dict:
    """New scenes with new captions: is each caption's own picture the nearest? Same meaning counts as right."""
    items = data.scenes(count, seed=98)
    texts = [row[0] for row in captions.captions(items, 1, seed=97)]
    model, tokenizer = load(), tok.load()
    seen = picture_features(model, data.to_float(data.pictures(items)))
    scores = text_features(model, tokenizer, texts) @ seen.T
    same = targets([item.meaning for item in items]) > 0
    order = scores.argsort(1, descending=True)
    hits = same.gather(1, order)
    return {
        "retrieval_n": count,
        "recall_at_1": round(hits[:, 0].float().mean().item(), 4),
        "recall_at_5": round(hits[:, :5].any(1).float().mean().item(), 4),
        "matched_cosine": round(scores.diagonal().mean().item(), 4),
        "unmatched_cosine": round(scores[~same].mean().item(), 4),
    }
