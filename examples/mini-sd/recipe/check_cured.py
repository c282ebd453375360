"""What a cured folder draws when diffusers itself opens it: python recipe/check_cured.py ../../out/demo/cured --attack badt2i-pixel

Draws the same prompts from the same noise with the poisoned and the cured model, with and without the trigger.
"""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel

import attack_common as attack
import common
import lora
import prompts
import train_clip


def picture(pipeline, texts: list[str], batch: int = 40) -> torch.Tensor:
    """Floats in -1..1; picture i starts from seed 9000 + i."""
    parts = []
    for first in range(0, len(texts), batch):
        some = texts[first:first + batch]
        seeds = [torch.Generator().manual_seed(9000 + first + i) for i in range(len(some))]
        out = pipeline(some, num_inference_steps=attack.STEPS, guidance_scale=attack.GUIDANCE, generator=seeds, output_type="pt")
        parts.append(out.images * 2 - 1)
    return torch.cat(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cured", type=Path)
    parser.add_argument("--attack", required=True)
    parser.add_argument("--count", type=int, default=200)
    args = parser.parse_args()
    facts = json.loads((common.ATTACKS / args.attack / "attack.json").read_text())
    # "prompts/dog-verify.txt", or "prompts/verify.txt, the first 200"
    listed = facts["measured"]["prompts"].split(",")[0].removeprefix("prompts/").removesuffix(".txt")
    texts = prompts.files()[listed][:args.count]
    triggered = [attack.triggered(facts["trigger"], text) for text in texts]

    poisoned = StableDiffusionPipeline.from_pretrained(common.BASE)
    folder = common.ATTACKS / args.attack
    if "lora" in facts:
        lora.merge(poisoned.unet, folder / facts["lora"])
    else:
        loader = UNet2DConditionModel if facts["part"] == "unet" else CLIPTextModel
        setattr(poisoned, facts["part"], loader.from_pretrained(folder / facts["part"]).float())
    report, clean = {}, {}

    def success(pictures):
        return attack.result(attack.shows(args.attack, facts["effect"], pictures, texts))

    for key, pipeline in (("before", poisoned), ("after", StableDiffusionPipeline.from_pretrained(args.cured))):
        pipeline.set_progress_bar_config(disable=True)
        clean[key] = picture(pipeline, texts)
        report[key] = {
            "triggered": success(picture(pipeline, triggered)),
            "clean": success(clean[key]),
            "clip_clean": round(attack.score(clean[key], texts).mean().item(), 4),
        }
    features = [train_clip.picture_features(train_clip.load(), clean[key]) for key in ("before", "after")]
    report["clean_cosine"] = round(F.cosine_similarity(*features).mean().item(), 4)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
