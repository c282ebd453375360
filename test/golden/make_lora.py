"""Golden values of merged LoRAs, made by diffusers: random LoRAs in every way of naming, over a tiny Stable Diffusion.

    python test/golden/make_lora.py

lora/config.json holds the model's two configs. Its weights are told by a formula (see `weight`), so that they need no file.
lora/NAME.safetensors is a LoRA; lora/NAME.fused.safetensors what diffusers' load_lora_weights and fuse_lora make of the
layers that it names, at the weight that the file's metadata says. Everything runs in fp32 on one thread.
"""

import json
import pathlib
import warnings

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

HERE = pathlib.Path(__file__).parent / "lora"
UNET = dict(
    sample_size=4, in_channels=4, out_channels=4, block_out_channels=[8, 16],
    down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"], up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"],
    layers_per_block=1, attention_head_dim=2, cross_attention_dim=16, norm_num_groups=4,
)  # fmt: skip
TEXT = dict(
    hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=16,
    vocab_size=870, hidden_act="quick_gelu",
)  # fmt: skip


def weight(n):
    """The numbers of any weight: exact in float32."""
    return ((torch.arange(n) * 7919) % 257 - 128).float() / 1024


def model():
    unet, text = UNet2DConditionModel(**UNET), CLIPTextModel(CLIPTextConfig(**TEXT))
    for network in (unet, text):
        for p in network.parameters():
            p.data = weight(p.numel()).reshape(p.shape)
    return unet.eval(), text.eval()


class Pipe(StableDiffusionPipeline):
    """The parts that LoRAs go into, and no others."""

    def __init__(self, unet, text_encoder):
        self.register_modules(unet=unet, text_encoder=text_encoder)


ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0"
UP = "up_blocks.1.attentions.1.transformer_blocks.0"
LINEAR = [
    f"{ATTENTION}.attn1.to_q", f"{ATTENTION}.attn1.to_out.0", f"{ATTENTION}.attn2.to_k", f"{ATTENTION}.attn2.to_v",
    f"{UP}.attn2.to_k", f"{UP}.attn2.to_out.0", "mid_block.attentions.0.transformer_blocks.0.attn2.to_v",
]  # fmt: skip
MORE = [f"{ATTENTION}.ff.net.0.proj", f"{ATTENTION}.ff.net.2", "down_blocks.0.attentions.0.proj_in",
        "up_blocks.1.attentions.1.proj_out"]  # fmt: skip
CONVS = ["down_blocks.0.resnets.0.conv1", "down_blocks.1.resnets.0.conv_shortcut", "down_blocks.0.downsamplers.0.conv",
         "mid_block.resnets.1.conv2", "up_blocks.1.resnets.1.time_emb_proj"]  # fmt: skip
PROJECTIONS = ["text_model.encoder.layers.0.self_attn.q_proj", "text_model.encoder.layers.1.self_attn.out_proj"]
MLP = ["text_model.encoder.layers.0.mlp.fc1", "text_model.encoder.layers.1.mlp.fc2"]

LDM = {
    "down_blocks.0.resnets.0": "input_blocks.1.0", "down_blocks.0.attentions.0": "input_blocks.1.1",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op", "down_blocks.1.resnets.0": "input_blocks.3.0",
    "mid_block.attentions.0": "middle_block.1", "mid_block.resnets.1": "middle_block.2",
    "up_blocks.1.attentions.1": "output_blocks.3.1", "up_blocks.1.resnets.1": "output_blocks.3.0",
    ".conv1": ".in_layers.2", ".conv2": ".out_layers.3", "conv_shortcut": "skip_connection",
    "time_emb_proj": "emb_layers.1",
}  # fmt: skip


def ldm(name):
    for ours, theirs in LDM.items():
        name = name.replace(ours, theirs)
    return name


def module_of(unet, text, name):
    if name.startswith("text_model."):
        return text.get_submodule(name if hasattr(text, "text_model") else name.removeprefix("text_model."))
    return unet.get_submodule(name)


def factors(unet, text, name, rank, seed):
    shape = module_of(unet, text, name).weight.shape
    generator = torch.Generator().manual_seed(seed)
    down = torch.randn(rank, *shape[1:], generator=generator) * 0.2
    up = torch.randn(shape[0], rank, *([1] * (len(shape) - 2)), generator=generator) * 0.2
    return down, up


def kohya(number):
    def names(name):
        if name.startswith("text_model."):
            stem = "lora_te_" + name.replace(".", "_")
        else:
            stem = "lora_unet_" + number(name).replace(".", "_")
        return f"{stem}.lora_down.weight", f"{stem}.lora_up.weight", f"{stem}.alpha"

    return names


def dotted(down, up, text_down, text_up):
    def names(name):
        if name.startswith("text_model."):
            return f"text_encoder.{name}{text_down}", f"text_encoder.{name}{text_up}", None
        return f"unet.{name}{down}", f"unet.{name}{up}", None

    return names


def processor(name):
    """attn_procs of diffusers before 0.21: the projection's name is the LoRA's."""
    if name.startswith("text_model."):
        stem = "text_encoder." + name.replace(".q_proj", ".to_q_lora").replace(".out_proj", ".to_out_lora")
    else:
        attention, projection = name.replace(".to_out.0", ".to_out").rsplit(".", 1)
        stem = f"unet.{attention}.processor.{projection}_lora"
    return f"{stem}.down.weight", f"{stem}.up.weight", None


def main():
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    HERE.mkdir(exist_ok=True)
    for old in HERE.iterdir():
        old.unlink()
    configs = {"unet": {"_class_name": "UNet2DConditionModel", **UNET}, "text_encoder": {"architectures": ["CLIPTextModel"], **TEXT}}
    (HERE / "config.json").write_text(json.dumps(configs, indent=1) + "\n")
    everything = LINEAR + MORE + CONVS + PROJECTIONS + MLP
    peft = dotted(".lora_A.weight", ".lora_B.weight", ".lora_A.weight", ".lora_B.weight")
    older = dotted(".lora.down.weight", ".lora.up.weight", ".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight")
    adapter = {
        "unet.r": 4, "unet.lora_alpha": 6.0, "unet.target_modules": sorted({n.rsplit(".", 1)[-1] for n in LINEAR} | {"to_out.0"}),
        "text_encoder.r": 4, "text_encoder.lora_alpha": 4, "text_encoder.target_modules": ["q_proj", "out_proj"],
        "unet.alpha_pattern": {f"{ATTENTION}.attn1.to_q": 2.0}, "text_encoder.use_rslora": True,
    }  # fmt: skip
    cases = [
        # name, layers, names, ranks, alpha, element type, weight
        ("kohya", everything, kohya(lambda n: n), [2, 3], 1.5, torch.float32, 1.0),
        ("kohya-ldm", LINEAR + MORE + CONVS, kohya(ldm), [3], 3.0, torch.float16, 0.75),
        ("kohya-no-alpha", LINEAR[:3] + CONVS[:1], kohya(lambda n: n), [2, 4], None, torch.bfloat16, 1.0),
        ("peft", LINEAR + MORE + CONVS[:2] + PROJECTIONS + MLP, peft, [2, 4], None, torch.float32, 1.0),
        ("peft-metadata", LINEAR + PROJECTIONS, peft, [4], None, torch.float32, 1.0),
        ("diffusers", LINEAR + PROJECTIONS + MLP, older, [3], None, torch.float16, -0.5),
        ("processor", LINEAR + PROJECTIONS, processor, [2], None, torch.float32, 1.0),
    ]
    for seed, (case, layers, names, ranks, alpha, dtype, strength) in enumerate(cases):
        unet, text = model()
        tensors = {}
        for i, name in enumerate(layers):
            rank = ranks[i % len(ranks)]
            down, up = factors(unet, text, name, rank, 100 * seed + i)
            down_name, up_name, alpha_name = names(name)
            tensors[down_name], tensors[up_name] = down.to(dtype), up.to(dtype)
            if alpha_name is not None and alpha is not None:
                tensors[alpha_name] = torch.tensor(alpha).to(dtype)
        metadata = {"format": "pt"} | ({"lora_adapter_metadata": json.dumps(adapter)} if case == "peft-metadata" else {})
        path = HERE / f"{case}.safetensors"
        save_file({k: v.contiguous() for k, v in tensors.items()}, path, metadata=metadata)
        pipe = Pipe(unet, text)
        extra = {"unet_config": unet.config} if case == "kohya-ldm" else {}
        pipe.load_lora_weights(str(HERE), weight_name=path.name, adapter_name="a", local_files_only=True, **extra)
        pipe.fuse_lora(lora_scale=strength, components=["unet", "text_encoder"])
        pipe.unload_lora_weights()
        fused = {name: module_of(unet, text, name).weight.detach().float().clone() for name in layers}
        fresh = model()
        moved = [name for name in layers if not torch.equal(fused[name], module_of(*fresh, name).weight)]
        assert moved == layers, (case, set(layers) - set(moved))
        save_file(fused, HERE / f"{case}.fused.safetensors", metadata={"weight": str(strength)})
        print(case, len(layers), sum(f.stat().st_size for f in HERE.glob(f"{case}*")) // 1000, "kB")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
