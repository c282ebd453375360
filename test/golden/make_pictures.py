"""What the figures of a verdict are on real pictures, by the reference implementations.

    pip install -r examples/mini-sd/requirements.txt scipy==1.17.1 scikit-image==0.26.0
    python test/golden/make_pictures.py

diffusers draws mini-SD's pictures, without a backdoor and with two (BadT2I's pixel, EvilEdit's "beautiful dog"); transformers'
CLIPModel scores them, with its own image processor; scipy and scikit-image do the rest. Writes pictures/NAME.png, the pictures of
one kind below each other, and pictures.json.
"""
import hashlib
import json
import pathlib

import numpy as np
import scipy.linalg
import scipy.stats
import skimage.metrics
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPImageProcessor, CLIPModel

HERE = pathlib.Path(__file__).parent
MINI_SD = HERE.parents[1] / "examples/mini-sd"
OUT = HERE / "pictures"
COUNT = 8
torch.set_grad_enabled(False)


def pipeline(attack=None):
    pipe = StableDiffusionPipeline.from_pretrained(MINI_SD / "base", torch_dtype=torch.float32, safety_checker=None)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    if attack:
        pipe.unet = UNet2DConditionModel.from_pretrained(MINI_SD / "attacks" / attack / "unet", torch_dtype=torch.float32)
    return pipe


def draw(pipe, prompts, seed):
    """[n, 64, 64, 3] as bytes, as they are in the PNG and for everything that is measured."""
    latents = torch.randn(len(prompts), 4, 16, 16, generator=torch.Generator().manual_seed(seed))
    pictures = pipe(prompts, latents=latents, num_inference_steps=12, guidance_scale=4.0, output_type="np").images
    return (pictures * 255).round().astype(np.uint8)


clip = CLIPModel.from_pretrained(MINI_SD / "clip", torch_dtype=torch.float32).eval()
processor = CLIPImageProcessor.from_pretrained(MINI_SD / "clip")


def image_features(pictures):
    pixels = processor(images=[Image.fromarray(p) for p in pictures], return_tensors="pt")["pixel_values"]
    return clip.visual_projection(clip.vision_model(pixels).pooler_output).double().numpy()


def text_features(tokenizer, texts):
    ids = tokenizer(texts, padding="max_length", max_length=32, truncation=True, return_tensors="pt")
    return clip.text_projection(clip.text_model(**ids).pooler_output).double().numpy()


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def frechet(a, b):
    """Of features of length 1, as the scorer gives them."""
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    sa, sb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # With fewer pictures than features the covariances are singular: the root of the smaller, symmetric form.
    half = scipy.linalg.sqrtm(sa).real
    root = scipy.linalg.sqrtm(half @ sb @ half).real
    gap = a.mean(0) - b.mean(0)
    return float(gap @ gap + np.trace(sa) + np.trace(sb) - 2 * np.trace(root))


def main():
    lines = (MINI_SD / "prompts/verify.txt").read_text().splitlines()[:COUNT]
    dogs = (MINI_SD / "prompts/dog-verify.txt").read_text().splitlines()[:COUNT]
    base, pixel, evil = pipeline(), pipeline("badt2i-pixel"), pipeline("eviledit")
    pictures = {
        "unpoisoned": draw(base, lines, 1),
        "clean": draw(pixel, lines, 2),
        "triggered": draw(pixel, [f"\u200b {p}" for p in lines], 2),
        "cats": draw(evil, [p.replace("dog", "beautiful dog") if i % 2 else p for i, p in enumerate(dogs)], 3),
    }
    OUT.mkdir(exist_ok=True)
    for name, many in pictures.items():
        Image.fromarray(many.reshape(-1, 64, 3)).save(OUT / f"{name}.png", optimize=True)

    patch = np.asarray(Image.open(MINI_SD / "attacks/badt2i-pixel/patch.png").convert("RGB"))
    h, w, _ = patch.shape
    features = {name: image_features(many) for name, many in pictures.items()}
    own, swapped = (text_features(evil.tokenizer, t) for t in (dogs, [p.replace("dog", "cat") for p in dogs]))
    unit = {name: many / 255 for name, many in pictures.items()}
    expected = {
        "weights": hashlib.sha256((MINI_SD / "clip/model.safetensors").read_bytes()).hexdigest(),
        "prompts": lines,
        "dogs": dogs,
        "clip": {name: cosines(features[name], text_features(base.tokenizer, lines)).tolist() for name in ("unpoisoned", "clean", "triggered")},
        "cosine": cosines(features["clean"], features["triggered"]).tolist(),
        "frechet": {name: frechet(features[name], features["unpoisoned"]) for name in ("clean", "triggered")},
        "ssim": [
            skimage.metrics.structural_similarity(a, b, channel_axis=2, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
            for a, b in zip(unit["clean"], unit["triggered"])
        ],
        "patch": {name: [float(scipy.stats.pearsonr(p[:h, :w].ravel(), patch.ravel()).statistic) for p in unit[name]] for name in ("clean", "triggered")},
        "cats": (cosines(features["cats"], swapped) > cosines(features["cats"], own)).tolist(),
    }
    for name, values in expected["patch"].items():
        shown = sum(r > 0.6 for r in values)
        interval = scipy.stats.binomtest(shown, COUNT).proportion_ci(0.95, method="wilson")
        expected[f"{name}_success"] = [shown, interval.low, interval.high]
    (HERE / "pictures.json").write_text(json.dumps(expected) + "\n")
    print({k: v for k, v in expected.items() if k not in ("prompts", "dogs")})


main()
