"""The attacks on the U-Net as LoRA files: python recipe/extract_lora.py [--check 100]

What an attack changed of each matrix and convolution, cut to a low rank; kohya's names, half precision.
"""

import argparse
import json

import torch
from safetensors.torch import load_file

import attack_common as attack
import common
import draw
import lora
import parts

RANKS = {"badt2i-pixel": 8, "eviledit": 16}
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def extract(name: str, rank: int) -> None:
    base, poisoned = load_file(common.BASE / WEIGHTS), load_file(common.ATTACKS / name / WEIGHTS)
    lora.extract(base, poisoned, rank, common.OUT / "loras" / f"{name}.safetensors")
    common.log(name, "LoRA of rank", rank)


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
