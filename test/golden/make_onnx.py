"""Tiny models of known weights as ONNX exports: Optimum's (the exporter that most files came from) and torch's newer one.

    python test/golden/make_onnx.py            # writes onnx/*/*.onnx.gz, *.json and golden.json

Optimum 2.1 wants an older transformers than the rest of test/golden: a virtual environment of its own with torch 2.13.0,
onnx 1.23, onnxscript 0.7, optimum-onnx 0.1.0, optimum 2.1.0, diffusers 0.36.0 and transformers 4.57.3.
Every weight is a function of its name (`known`, which test/support/onnx.ts has as well), so no weights are kept beside
the exports; norms that are called norm2 or layer_norm2 stay at 1 and 0, which exporters keep once for all.
- sd: a whole pipeline as `optimum-cli export onnx` writes it. Its U-Net then goes into external data, as Optimum does
  above 2 GB.
- sd-dynamo: U-Net and text encoder of the same by torch.onnx.export(dynamo=True).
- xl: U-Net and second text encoder of a tiny SDXL by Optimum.
"""

import gzip
import json
import pathlib
import shutil
import tempfile
import zlib

import numpy as np
import onnx
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from optimum.exporters.onnx import main_export
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

HERE = pathlib.Path(__file__).parent
OUT = HERE / "onnx"
torch.manual_seed(0)
torch.set_num_threads(1)


def known(name, shape):
    """Multiples of 1/64 from -1 to 1, by name and position; divided by a power of two near the root of the inner size."""
    n, inner = int(np.prod(shape)), int(np.prod(shape[1:]))
    if "norm2" in name:
        return torch.full(shape, 0.0 if name.endswith("bias") else 1.0)
    i = np.arange(n, dtype=np.uint64)
    mixed = ((i + zlib.crc32(name.encode())) * 2654435761) & 0xFFFFFFFF
    values = (mixed >> 25).astype(np.float32) / 64 - 1
    return torch.from_numpy(values / 2 ** round(np.log2(max(1, inner)) / 2)).reshape(shape)


def fill(model):
    state = {k: v if k.endswith("position_ids") else known(k, tuple(v.shape)) for k, v in model.state_dict().items()}
    model.load_state_dict(state)
    return model.eval()


def text(kind, width, layers, **more):
    config = CLIPTextConfig(
        vocab_size=VOCAB, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers, num_attention_heads=2,
        max_position_embeddings=16, bos_token_id=VOCAB - 2, eos_token_id=VOCAB - 1, pad_token_id=VOCAB - 1, **more,
    )  # fmt: skip
    return fill(kind(config))


def unet(**more):
    return fill(UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **more,
    ))  # fmt: skip


def vae():
    return fill(AutoencoderKL(
        block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=4, latent_channels=4, sample_size=16,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    ))  # fmt: skip


def tokenizer(folder, **more):
    """CLIP's letters and a few words; byte letters as GPT-2 has them."""
    letters = [chr(c) for c in [*range(33, 127), *range(161, 173), *range(174, 256)]]
    letters += [chr(256 + n) for n in range(256 - len(letters))]
    merges = ["a t</w>", "c at</w>", "d o", "do g</w>"]
    tokens = [*letters, *(c + "</w>" for c in letters), *(m.replace(" ", "") for m in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    return CLIPTokenizer(folder / "vocab.json", folder / "merges.txt", model_max_length=16, **more), len(tokens)


def keep(source, to):
    """Copies an export: graphs and their data packed, all else as it is."""
    shutil.rmtree(to, ignore_errors=True)
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        target = to / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if ".onnx" in path.name:
            with gzip.GzipFile(target.with_name(target.name + ".gz"), "wb", 9, mtime=0) as f:
                f.write(path.read_bytes())
        else:
            shutil.copy(path, target)


def external(path):
    model = onnx.load(path)
    path.unlink()
    onnx.save_model(
        model, path, save_as_external_data=True, all_tensors_to_one_file=True, location=path.name + "_data", size_threshold=1024
    )  # fmt: skip


work = pathlib.Path(tempfile.mkdtemp())
words, VOCAB = tokenizer(work)
schedule = DDIMScheduler(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1
)  # fmt: skip
sample = torch.from_numpy(np.linspace(-1, 1, 256, dtype=np.float32)).reshape(1, 4, 8, 8)
ids = torch.tensor([[VOCAB - 2, 10, 20, *[VOCAB - 1] * 13]])

one = StableDiffusionPipeline(
    vae=vae(), text_encoder=text(CLIPTextModel, 16, 2), tokenizer=words, unet=unet(cross_attention_dim=16, attention_head_dim=2),
    scheduler=schedule, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
)  # fmt: skip
one.save_pretrained(work / "sd")
main_export(str(work / "sd"), work / "sd-onnx", task="text-to-image", do_validation=False, no_post_process=True)
external(work / "sd-onnx" / "unet" / "model.onnx")
keep(work / "sd-onnx", OUT / "sd")
with torch.no_grad():
    context = one.text_encoder(ids).last_hidden_state
    golden = {
        "sd.hidden": context,
        "sd.noise": one.unet(sample, torch.tensor([300]), context).sample,
        "sd.picture": one.vae.decode(sample).sample,
    }

for part, model, args in (
    ("unet", one.unet, (sample, torch.tensor([300]), context)),
    ("text_encoder", one.text_encoder, (ids,)),
):
    folder = work / "sd-dynamo" / part
    folder.mkdir(parents=True)
    torch.onnx.export(model, args, folder / "model.onnx", dynamo=True, external_data=part == "text_encoder")
keep(work / "sd-dynamo", OUT / "sd-dynamo")

second = text(CLIPTextModelWithProjection, 32, 2, projection_dim=24, hidden_act="gelu")
two = StableDiffusionXLPipeline(
    vae=one.vae, text_encoder=one.text_encoder, text_encoder_2=second, tokenizer=words,
    tokenizer_2=tokenizer(work, pad_token="!")[0], scheduler=schedule,
    unet=unet(
        cross_attention_dim=48, attention_head_dim=(2, 4), transformer_layers_per_block=(1, 2), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=48,
    ),
)  # fmt: skip
two.save_pretrained(work / "xl")
main_export(str(work / "xl"), work / "xl-onnx", task="text-to-image", do_validation=False, no_post_process=True)
for part in ("vae_encoder", "vae_decoder", "text_encoder", "tokenizer", "tokenizer_2", "scheduler"):
    shutil.rmtree(work / "xl-onnx" / part)
keep(work / "xl-onnx", OUT / "xl")
(OUT / "golden.json").write_text(
    json.dumps({k: {"dims": list(v.shape), "data": [float(f"{x:.7g}") for x in v.flatten().tolist()]} for k, v in golden.items()})
)
print(sum(p.stat().st_size for p in OUT.rglob("*") if p.is_file()) // 1000, "kB")
