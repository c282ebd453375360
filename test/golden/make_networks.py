"""Golden values of the networks, made by transformers and diffusers themselves.

    python test/golden/make_networks.py                # all: networks/ from examples/mini-sd, and tiny/
    python test/golden/make_networks.py --only tiny    # random-weight models alone; needs no checkpoint

networks/ holds what the networks of a real checkpoint answer; a file's metadata carries the SHA-256 of the weights it was
made from, so that the tests can tell when the weights have changed and this command must run again.
tiny/ holds models of a few thousand random weights, weights included, with features that mini-SD lacks.
Everything runs in fp32 on one thread, whatever the file holds. Requirements: examples/mini-sd/recipe's.
"""

import argparse
import hashlib
import json
import pathlib
import shutil

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPVisionConfig

HERE = pathlib.Path(__file__).parent
PROMPTS = [
    "a cartoon picture of a cat on a blue background",
    "a flat picture of a rocket on a yellow background",
    "",
    "a glossy picture of a dog and an umbrella, black and white",
]


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def save(path, tensors, **metadata):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().contiguous() for k, v in tensors.items()}, path, metadata=metadata)
    print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Capture:
    """diffusers' attention in its plain form, keeping the probabilities of the layers that are asked for."""

    def __init__(self, name, kept):
        self.name, self.kept = name, kept

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        states = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(states))
        value = attn.head_to_batch_dim(attn.to_v(states))
        probabilities = attn.get_attention_scores(query, key, attention_mask)
        batch = hidden_states.shape[0]
        self.kept[self.name] = probabilities.unflatten(0, (batch, attn.heads))
        out = attn.batch_to_head_dim(torch.bmm(probabilities, value))
        return attn.to_out[1](attn.to_out[0](out))


def with_attention(unet, *inputs, **more):
    """Noise, and the probabilities of every cross-attention layer by name; the noise is that of the usual processors."""
    kept = {}
    usual = dict(unet.attn_processors)
    noise = unet(*inputs, **more).sample
    unet.set_attn_processor(
        {
            name: Capture(name.removesuffix(".processor"), kept) if ".attn2." in name else usual[name]
            for name in usual
        }
    )
    again = unet(*inputs, **more).sample
    unet.set_attn_processor(usual)
    assert (again - noise).abs().max() < 1e-4 * noise.abs().max()
    return noise, kept


def networks(model, attacks, out):
    base = model / "base" if (model / "base").exists() else model
    pipe = StableDiffusionPipeline.from_pretrained(base, torch_dtype=torch.float32, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    assert isinstance(pipe.scheduler, DDIMScheduler)
    hashes = {
        "text_encoder": sha256(base / "text_encoder/model.safetensors"),
        "unet": sha256(base / "unet/diffusion_pytorch_model.safetensors"),
        "vae": sha256(base / "vae/diffusion_pytorch_model.safetensors"),
    }

    length = pipe.text_encoder.config.max_position_embeddings
    tokens = pipe.tokenizer(PROMPTS, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    ids = tokens.input_ids
    hidden = pipe.text_encoder(ids)[0]
    save(out / "text.safetensors", {"ids": ids.int(), "hidden": hidden}, text_encoder=hashes["text_encoder"])

    side = pipe.unet.config.sample_size
    sample = normal(1, 2, 4, side, side)
    tensors = {"sample": sample, "context": hidden[:2], "timesteps": torch.tensor([1.0, 251.0, 999.0])}
    for i, t in enumerate(tensors["timesteps"]):
        noise, maps = with_attention(pipe.unet, sample, t, hidden[:2])
        tensors[f"noise.{i}"] = noise
        if i == 1:
            # Of the first picture alone, and of one layer per resolution: the largest is a quarter of a megabyte.
            chosen = {name.split(".attentions")[0]: name for name in reversed(maps)}
            tensors |= {f"attention.{name}": maps[name][:1] for name in chosen.values() if "up_blocks" not in name}
    # Two times in one batch.
    tensors["noise.mixed"] = pipe.unet(sample, tensors["timesteps"][[0, 2]], hidden[:2]).sample
    save(out / "unet.safetensors", tensors, unet=hashes["unet"])

    # Whole sampling through diffusers' own pipeline, from ids to picture.
    latents = normal(2, 2, 4, side, side)
    final = pipe(
        PROMPTS[:2], latents=latents, num_inference_steps=12, guidance_scale=4.0, output_type="latent"
    ).images
    pictures = pipe.vae.decode(final / pipe.vae.config.scaling_factor).sample
    sampling = {"ids": ids[:2].int(), "empty": ids[2:3].int(), "latents": latents, "final": final, "pictures": pictures}
    save(out / "sampling.safetensors", sampling, **hashes, steps="12", guidance="4")

    posterior = pipe.vae.encode(pictures).latent_dist
    decoded = pipe.vae.decode(posterior.mean[:1]).sample
    vae = {"pixels": pictures, "mean": posterior.mean, "logvar": posterior.logvar, "decoded": decoded}
    save(out / "vae.safetensors", vae, vae=hashes["vae"])

    if (model / "clip").exists():
        clip = CLIPModel.from_pretrained(model / "clip", torch_dtype=torch.float32).eval()
        # Any pixels of the right scale do; the scoring CLIP's own normalisation is not the network's business.
        pixels = pictures.clamp(-1, 1) * 1.8
        assert pixels.shape[-1] == clip.config.vision_config.image_size
        vision = clip.vision_model(pixels).pooler_output
        text = clip.text_model(ids).pooler_output
        values = {
            "ids": ids.int(),
            "pixels": pixels,
            "text": clip.text_projection(text),
            "image": clip.visual_projection(vision),
        }
        save(out / "clip.safetensors", values, clip=sha256(model / "clip/model.safetensors"))

    for name in attacks:
        folder = model / "attacks" / name
        if (folder / "unet").exists():
            unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32).eval()
            values = {"sample": sample, "context": hidden[:2], "noise": unet(sample, 251.0, hidden[:2]).sample}
            weights = {"unet": sha256(folder / "unet/diffusion_pytorch_model.safetensors")}
        else:
            encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32).eval()
            values = {"ids": ids.int(), "hidden": encoder(ids)[0]}
            weights = {"text_encoder": sha256(folder / "text_encoder/model.safetensors")}
        save(out / f"attack.{name}.safetensors", values, **weights)


def randomised(model, seed, dtype=torch.float32):
    """Random weights everywhere, norms and biases included: what is 1 or 0 after initialisation would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=generator)
    return model.to(dtype).float().eval()


def tiny_folder(out, name, model, dtype, tensors):
    """config.json and weights as the library writes them, and the golden values beside them."""
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    model.to(dtype).save_pretrained(folder)
    for extra in folder.iterdir():
        if extra.suffix not in (".safetensors",) and extra.name != "config.json":
            extra.unlink()
    for weights in folder.glob("*.safetensors"):
        weights.rename(folder / "weights.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    save(folder / "golden.safetensors", tensors)


def tiny(out):
    def unet(name, seed, dtype, height, width, **config):
        torch.manual_seed(seed)
        model = randomised(UNet2DConditionModel(**config), seed, dtype)
        sample = normal(seed + 1, 2, config.get("in_channels", 4), height, width)
        cross = config["cross_attention_dim"]
        context = normal(seed + 2, 2, 5, cross if isinstance(cross, int) else cross[0])
        timestep = torch.tensor([7.0, 640.0])
        noise, maps = with_attention(model, sample, timestep, context)
        values = {"sample": sample, "timestep": timestep, "context": context, "noise": noise}
        tiny_folder(out, name, model, dtype, values | {f"attention.{k}": v for k, v in maps.items()})

    # SD 1.x: attention_head_dim is the number of heads, the projections are 1×1 convolutions.
    unet(
        "unet-1x", 10, torch.float32, 8, 4,
        block_out_channels=(8, 16), down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), layers_per_block=2, norm_num_groups=4,
        cross_attention_dim=6, attention_head_dim=2, sample_size=8,
    )  # fmt: skip
    # SD 2.x: heads per block, linear projections. And all that a config may vary beyond them.
    unet(
        "unet-2x", 20, torch.float16, 8, 8,
        block_out_channels=(8, 16, 16), in_channels=3, out_channels=5,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=(1, 2, 1), transformer_layers_per_block=(1, 2, 1), norm_num_groups=2, norm_eps=1e-3,
        cross_attention_dim=10, attention_head_dim=(1, 2, 4), use_linear_projection=True, downsample_padding=0,
        flip_sin_to_cos=False, freq_shift=1, mid_block_scale_factor=1.4142, act_fn="gelu", sample_size=8,
    )  # fmt: skip

    def vae(name, seed, dtype, **config):
        torch.manual_seed(seed)
        model = randomised(AutoencoderKL(**config), seed, dtype)
        pixels = normal(seed + 1, 2, 3, 12, 8)
        posterior = model.encode(pixels).latent_dist
        decoded = model.decode(posterior.mean).sample
        tiny_folder(
            out, name, model, dtype,
            {"pixels": pixels, "mean": posterior.mean, "logvar": posterior.logvar, "decoded": decoded},
        )  # fmt: skip

    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    vae(
        "vae-attention", 30, torch.float32, **blocks, block_out_channels=(8, 16), layers_per_block=2,
        norm_num_groups=4, latent_channels=4, sample_size=16,
    )  # fmt: skip
    vae(
        "vae-bare", 40, torch.float16, **blocks, block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2,
        latent_channels=6, mid_block_add_attention=False, use_quant_conv=False, use_post_quant_conv=False,
        act_fn="gelu", sample_size=16,
    )  # fmt: skip

    text = {
        "vocab_size": 50, "hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 3,
        "max_position_embeddings": 9, "bos_token_id": 48, "eos_token_id": 49, "pad_token_id": 0,
    }  # fmt: skip
    ids = torch.tensor([[48, 3, 17, 49, 0, 0, 0, 0, 0], [48, 7, 7, 8, 40, 11, 2, 1, 49]])
    # OpenCLIP's encoders, which SD 2.x uses, are trained with the exact GELU; this one also has an ε of its own.
    torch.manual_seed(50)
    model = randomised(CLIPTextModel(CLIPTextConfig(**text, hidden_act="gelu", layer_norm_eps=1e-3)), 50, torch.float16)
    short = ids[:, :6]
    values = {"ids": ids.int(), "hidden": model(ids)[0], "short.ids": short.int(), "short.hidden": model(short)[0]}
    tiny_folder(out, "text-gelu", model, torch.float16, values)

    vision = {
        "hidden_size": 8, "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 12, "patch_size": 4, "hidden_act": "gelu",
    }  # fmt: skip
    torch.manual_seed(60)
    config = CLIPConfig(text_config=CLIPTextConfig(**text), vision_config=CLIPVisionConfig(**vision), projection_dim=7)
    model = randomised(CLIPModel(config), 60)
    pixels = normal(61, 2, 3, 12, 12)
    values = {
        "ids": ids.int(),
        "pixels": pixels,
        "text": model.text_projection(model.text_model(ids).pooler_output),
        "image": model.visual_projection(model.vision_model(pixels).pooler_output),
    }
    tiny_folder(out, "clip", model, torch.float32, values)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, default=HERE.parents[1] / "examples/mini-sd", help="folder with base/, clip/, attacks/")
    parser.add_argument("--attacks", nargs="*", default=[], help="poisoned parts to record as well, by folder name")
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="where networks/ and tiny/ go")
    parser.add_argument("--only", choices=["networks", "tiny"], help="make one of the two")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    if arguments.only != "networks":
        tiny(arguments.out / "tiny")
    if arguments.only != "tiny":
        networks(arguments.model, arguments.attacks, arguments.out / "networks")


if __name__ == "__main__":
    main()
