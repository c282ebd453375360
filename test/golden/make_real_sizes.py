"""Networks of real width with seeded random weights, and what diffusers and transformers answer: not kept, made when wanted.

    python test/golden/make_real_sizes.py OUT [NAME ...]
    SAU_REAL_SIZES=OUT SAU_DEVICE=native npx -y deno@2.9.6 test -A test/models/real_sizes.test.ts

NAME is sd-1.5.unet and the like (all when none is given), by the configs of configs/. Each goes into a folder of its own,
up to 2 GB: weights in half precision, which both sides compute with in single precision, and golden values at a small
resolution. One network is in memory at a time, at most about 8 GB.
SDXL's U-Net has 10 transformer layers in each attention of its third resolution, 2.6 billion weights in all; --layers 10
makes it whole, the default of 2 leaves 0.9 billion, every shape among them.
Requirements: examples/mini-sd/recipe's.
"""

import argparse
import gc
import json
import pathlib

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from make_networks import normal, save
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

HERE = pathlib.Path(__file__).parent
NAMES = [
    "sd-1.5.text_encoder", "sd-1.5.vae", "sd-1.5.unet", "sd-2.1.text_encoder", "sd-2.1.unet",
    "sdxl-1.0.text_encoder", "sdxl-1.0.text_encoder_2", "sdxl-1.0.vae", "sdxl-1.0.unet",
]  # fmt: skip


def rounded(model, seed):
    """The library's own initial weights, norms and biases moved off 1 and 0, all rounded to half precision."""
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        if p.dim() == 1:
            p.data += 0.1 * torch.randn(p.shape, generator=generator)
        p.data = p.data.half().float()
    return model.eval()


def text(kind, config):
    model = rounded(kind(CLIPTextConfig.from_dict(config)), 1)
    ids = torch.randint(1, 40000, (2, 77), generator=torch.Generator().manual_seed(2))
    ids[:, 0], ids[0, 9:], ids[1, 76] = 49406, 49407, 49407
    out = model(ids, output_hidden_states=True)
    values = {"ids": ids.int(), "hidden": out.last_hidden_state, "penultimate": out.hidden_states[-2]}
    if hasattr(out, "text_embeds"):
        values["pooled"] = out.text_embeds
    return model, values


def unet(config):
    model = rounded(UNet2DConditionModel.from_config(config), 1)
    values = {
        "sample": normal(2, 2, 4, 16, 16),
        "timestep": torch.tensor([7.0, 640.0]),
        "context": normal(3, 2, 77, config["cross_attention_dim"]),
    }
    added = None
    if config.get("addition_embed_type"):
        pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        sizes = torch.tensor([[1024.0, 1024.0, 0.0, 0.0, 1024.0, 1024.0], [768.0, 512.0, 16.0, 8.0, 1024.0, 896.0]])
        values |= {"pooled": normal(4, 2, pooled), "sizes": sizes}
        added = {"text_embeds": values["pooled"], "time_ids": sizes}
    noise = model(values["sample"], values["timestep"], values["context"], added_cond_kwargs=added).sample
    return model, values | {"noise": noise}


def vae(config):
    model = rounded(AutoencoderKL.from_config(config), 1)
    pixels = normal(2, 1, 3, 64, 64)
    posterior = model.encode(pixels).latent_dist
    return model, {
        "pixels": pixels, "mean": posterior.mean, "logvar": posterior.logvar, "decoded": model.decode(posterior.mean).sample,
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--layers", type=int, default=2, help="transformer layers at SDXL's third resolution")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    for name in arguments.names:
        model_name, part = name.rsplit(".", 1)
        config = json.loads((HERE / "configs" / model_name / part / "config.json").read_text())
        if "transformer_layers_per_block" in config and isinstance(config["transformer_layers_per_block"], list):
            config["transformer_layers_per_block"][-1] = arguments.layers
        make = {
            "text_encoder": lambda c: text(CLIPTextModel, c),
            "text_encoder_2": lambda c: text(CLIPTextModelWithProjection, c),
            "unet": unet,
            "vae": vae,
        }[part]
        model, values = make(config)
        folder = arguments.out / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
        save(folder / "golden.safetensors", values)
        count = sum(p.numel() for p in model.parameters())
        save_file({k: v.half().contiguous() for k, v in model.state_dict().items() if v.is_floating_point()}, folder / "weights.safetensors")
        print(f"{name}: {count / 1e6:.0f} million weights", flush=True)
        del model, values
        gc.collect()


if __name__ == "__main__":
    main()
