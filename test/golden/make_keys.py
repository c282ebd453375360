"""Names and shapes of the weights of SD 1.5, SD 2.1, SD-Turbo and SDXL 1.0, from diffusers' and transformers' own classes.

    python test/golden/make_keys.py        # reads configs/*/*/config.json, writes keys/*.json

The classes are built on torch's meta device, so no weights are needed. The configs are those of the checkpoints as they
were published (runwayml/stable-diffusion-v1-5, and stabilityai's stable-diffusion-2-1, sd-turbo and stable-diffusion-xl-base-1.0).
A list maps each shape, "320,320,3,3", to the keys that have it.
"""

import json
import pathlib

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

HERE = pathlib.Path(__file__).parent


def build(part, config):
    with torch.device("meta"):
        if part == "text_encoder":
            return CLIPTextModel(CLIPTextConfig.from_dict(config))
        if part == "text_encoder_2":
            return CLIPTextModelWithProjection(CLIPTextConfig.from_dict(config))
        return {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[part].from_config(config)


for path in sorted(HERE.glob("configs/*/*/config.json")):
    part, name = path.parent.name, path.parent.parent.name
    keys = {}
    for key, tensor in build(part, json.loads(path.read_text())).state_dict().items():
        keys.setdefault(",".join(map(str, tensor.shape)), []).append(key)
    out = HERE / "keys" / f"{name}.{part}.json"
    out.parent.mkdir(exist_ok=True)
    lines = [f"{json.dumps(shape)}: {json.dumps(names)}" for shape, names in sorted(keys.items())]
    out.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{out}  {sum(map(len, keys.values()))} keys, {out.stat().st_size / 1000:.0f} kB")
