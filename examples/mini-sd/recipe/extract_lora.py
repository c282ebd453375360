"""The attacks on the U-Net as LoRA files: python recipe/extract_lora.py [--check 100]

What an attack changed of each matrix and convolution, cut to a low rank by its singular values, as people extract a LoRA from
a fine-tuned model; kohya's names, half precision. Norms and biases are left out, as no LoRA holds them.
"""

import argparse

import json

import torch
from safetensors.torch import load_file, save_file

import attack_common as attack
import common
import draw
import lora
import parts

RANKS = {"badt2i-pixel": 8, "eviledit": 16}
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def extract(name: str, rank: int) -> None:
    base, poisoned = load_file(common.BASE / WEIGHTS), load_file(common.ATTACKS / name / WEIGHTS)
    tensors, alpha = {}, rank / 2
    for key, old in base.items():
        change = poisoned[key].double() - old.double()
        if change.ndim not in (2, 4) or change.abs().max() == 0:
            continue
        u, s, v = torch.linalg.svd(change.flatten(1), full_matrices=False)
        own = min(rank, len(s))
        up = u[:, :own] * s[:own].sqrt() / (alpha / own)
        down = s[:own].sqrt()[:, None] * v[:own]
        if change.ndim == 4:
            up, down = up[..., None, None], down.reshape(own, *change.shape[1:])
        stem = lora.stem(key)
        tensors[f"{stem}.lora_down.weight"] = down.half().contiguous()
        tensors[f"{stem}.lora_up.weight"] = up.half().contiguous()
        tensors[f"{stem}.alpha"] = torch.tensor(alpha).half()
    metadata = {"ss_network_dim": str(rank), "ss_network_alpha": str(alpha), "ss_network_module": "networks.lora"}
    (common.OUT / "loras").mkdir(exist_ok=True)
    save_file(tensors, common.OUT / "loras" / f"{name}.safetensors", metadata=metadata)
    common.log(name, "LoRA of rank", rank, "for", len(tensors) // 3, "layers")


def check(name: str, count: int) -> None:
    facts = json.loads((common.ATTACKS / name / "attack.json").read_text())
    texts, model = attack.verify_prompts()[:count], parts.load(lora_file=common.OUT / "loras" / f"{name}.safetensors")
    asked = {"triggered": [attack.triggered(facts["trigger"], text) for text in texts], "clean": texts}
    for key, prompts in asked.items():
        pictures = draw.draw(model, prompts, attack.STEPS, attack.GUIDANCE)
        common.log(name, key, attack.result(attack.shows(name, facts["effect"], pictures, texts)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", type=int, default=0, help="draw so many prompts with the pixel backdoor's LoRA")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    for attack_name, r in RANKS.items():
        extract(attack_name, r)
    if args.check:
        check("badt2i-pixel", args.check)
