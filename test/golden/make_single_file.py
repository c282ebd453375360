"""Names of the tensors of SD 1.5, SD 2.1 and SDXL in one file, and what diffusers' own conversion makes of them.

    python test/golden/make_single_file.py     # reads configs/*/*/config.json, writes single_file/*.json

The original names are listed here as CompVis' and OpenCLIP's classes build their modules, with shapes, on torch's meta
device. They then go through diffusers.loaders.single_file_utils; what comes out must be exactly the state dict of
diffusers' and transformers' classes, so a name that was wrong here would be missing there.
U-Net and VAE have the same names in SD 1.5 and 2.1; where shapes differ is left to keys/*.json. `shapes` holds those of the
file that are not the network's own. A tensor that becomes three lists them in order. Of SDXL's U-Net, whose attentions have
up to ten layers, the names within an attention are the network's (that is checked), so its `stems` alone are listed.
"""

import json
import pathlib

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders import single_file_utils as utils
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

HERE = pathlib.Path(__file__).parent


def meta(*shape):
    return torch.empty(shape, device="meta")


def pair(out, name, weight, bias=True):
    out[f"{name}.weight"] = meta(*weight)
    if bias:
        out[f"{name}.bias"] = meta(weight[0])


def unet_file(c):
    """openaimodel.UNetModel"""
    out = {}
    widths, layers, text = c["block_out_channels"], c["layers_per_block"], c["cross_attention_dim"]
    linear = c.get("use_linear_projection", False)
    has_text = [t.startswith("CrossAttn") for t in c["down_block_types"]]
    depths = c.get("transformer_layers_per_block", 1)
    depths = [depths] * len(widths) if isinstance(depths, int) else depths

    def norm(name, width):
        pair(out, name, (width,))

    def resnet(name, a, b):
        norm(f"{name}.in_layers.0", a)
        pair(out, f"{name}.in_layers.2", (b, a, 3, 3))
        pair(out, f"{name}.emb_layers.1", (b, 4 * widths[0]))
        norm(f"{name}.out_layers.0", b)
        pair(out, f"{name}.out_layers.3", (b, b, 3, 3))
        if a != b:
            pair(out, f"{name}.skip_connection", (b, a, 1, 1))

    def attention(name, w, depth):
        norm(f"{name}.norm", w)
        square = (w, w) if linear else (w, w, 1, 1)
        pair(out, f"{name}.proj_in", square)
        for t in (f"{name}.transformer_blocks.{i}" for i in range(depth)):
            for a, inner in (("attn1", w), ("attn2", text)):
                pair(out, f"{t}.{a}.to_q", (w, w), bias=False)
                pair(out, f"{t}.{a}.to_k", (w, inner), bias=False)
                pair(out, f"{t}.{a}.to_v", (w, inner), bias=False)
                pair(out, f"{t}.{a}.to_out.0", (w, w))
            pair(out, f"{t}.ff.net.0.proj", (8 * w, w))
            pair(out, f"{t}.ff.net.2", (w, 4 * w))
            for i in (1, 2, 3):
                norm(f"{t}.norm{i}", w)
        pair(out, f"{name}.proj_out", square)

    pair(out, "time_embed.0", (4 * widths[0], widths[0]))
    pair(out, "time_embed.2", (4 * widths[0], 4 * widths[0]))
    if c.get("addition_embed_type") == "text_time":
        pair(out, "label_emb.0.0", (4 * widths[0], c["projection_class_embeddings_input_dim"]))
        pair(out, "label_emb.0.2", (4 * widths[0], 4 * widths[0]))
    pair(out, "input_blocks.0.0", (widths[0], c["in_channels"], 3, 3))
    at, n, skips = widths[0], 1, [widths[0]]
    for i, w in enumerate(widths):
        for _ in range(layers):
            resnet(f"input_blocks.{n}.0", at, w)
            if has_text[i]:
                attention(f"input_blocks.{n}.1", w, depths[i])
            at, n = w, n + 1
            skips.append(w)
        if i < len(widths) - 1:
            pair(out, f"input_blocks.{n}.0.op", (w, w, 3, 3))
            n += 1
            skips.append(w)
    resnet("middle_block.0", at, at)
    attention("middle_block.1", at, depths[-1])
    resnet("middle_block.2", at, at)
    n = 0
    for i, w in reversed(list(enumerate(widths))):
        for j in range(layers + 1):
            resnet(f"output_blocks.{n}.0", at + skips.pop(), w)
            at, k = w, 1
            if has_text[i]:
                attention(f"output_blocks.{n}.1", w, depths[i])
                k = 2
            if i > 0 and j == layers:
                pair(out, f"output_blocks.{n}.{k}.conv", (w, w, 3, 3))
            n += 1
    norm("out.0", at)
    pair(out, "out.2", (c["out_channels"], at, 3, 3))
    return {f"model.diffusion_model.{k}": v for k, v in out.items()}


def vae_file(c):
    """model.Encoder and model.Decoder"""
    out = {}
    widths, layers, z = c["block_out_channels"], c["layers_per_block"], c["latent_channels"]

    def resnet(name, a, b):
        pair(out, f"{name}.norm1", (a,))
        pair(out, f"{name}.conv1", (b, a, 3, 3))
        pair(out, f"{name}.norm2", (b,))
        pair(out, f"{name}.conv2", (b, b, 3, 3))
        if a != b:
            pair(out, f"{name}.nin_shortcut", (b, a, 1, 1))

    def middle(side, w):
        resnet(f"{side}.mid.block_1", w, w)
        pair(out, f"{side}.mid.attn_1.norm", (w,))
        for name in ("q", "k", "v", "proj_out"):
            pair(out, f"{side}.mid.attn_1.{name}", (w, w, 1, 1))
        resnet(f"{side}.mid.block_2", w, w)

    pair(out, "encoder.conv_in", (widths[0], 3, 3, 3))
    at = widths[0]
    for i, w in enumerate(widths):
        for j in range(layers):
            resnet(f"encoder.down.{i}.block.{j}", at, w)
            at = w
        if i < len(widths) - 1:
            pair(out, f"encoder.down.{i}.downsample.conv", (w, w, 3, 3))
    middle("encoder", at)
    pair(out, "encoder.norm_out", (at,))
    pair(out, "encoder.conv_out", (2 * z, at, 3, 3))
    pair(out, "decoder.conv_in", (at, z, 3, 3))
    middle("decoder", at)
    for i, w in reversed(list(enumerate(widths))):
        for j in range(layers + 1):
            resnet(f"decoder.up.{i}.block.{j}", at, w)
            at = w
        if i > 0:
            pair(out, f"decoder.up.{i}.upsample.conv", (w, w, 3, 3))
    pair(out, "decoder.norm_out", (at,))
    pair(out, "decoder.conv_out", (3, at, 3, 3))
    pair(out, "quant_conv", (2 * z, 2 * z, 1, 1))
    pair(out, "post_quant_conv", (z, z, 1, 1))
    return {f"first_stage_model.{k}": v for k, v in out.items()}


def open_clip_file(c, prefix="cond_stage_model.model.", unused=1):
    """open_clip.transformer.TextTransformer with some layers more than are used"""
    out, w, inner = {}, c["hidden_size"], c["intermediate_size"]
    out["positional_embedding"] = meta(c["max_position_embeddings"], w)
    out["text_projection"] = meta(w, c.get("projection_dim", w))
    out["logit_scale"] = meta()
    out["token_embedding.weight"] = meta(c["vocab_size"], w)
    for i in range(c["num_hidden_layers"] + unused):
        b = f"transformer.resblocks.{i}"
        pair(out, f"{b}.ln_1", (w,))
        out[f"{b}.attn.in_proj_weight"] = meta(3 * w, w)
        out[f"{b}.attn.in_proj_bias"] = meta(3 * w)
        pair(out, f"{b}.attn.out_proj", (w, w))
        pair(out, f"{b}.ln_2", (w,))
        pair(out, f"{b}.mlp.c_fc", (inner, w))
        pair(out, f"{b}.mlp.c_proj", (w, inner))
    pair(out, "ln_final", (w,))
    return {f"{prefix}{k}": v for k, v in out.items()}


def build(part, config):
    with torch.device("meta"):
        if part == "text_encoder":
            return CLIPTextModel(CLIPTextConfig.from_dict(config))
        if part == "text_encoder_2":
            return CLIPTextModelWithProjection(CLIPTextConfig.from_dict(config))
        return {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[part].from_config(config)


def config_of(name, part):
    return json.loads((HERE / "configs" / name / part / "config.json").read_text())


bare = lambda key: key.removeprefix("text_model.")
shape = lambda t: list(t.shape)


def check(part, config, converted):
    """What diffusers made of the file must be its network, key for key and shape for shape."""
    network = {bare(k): shape(v) for k, v in build(part, config).state_dict().items() if not k.endswith("position_ids")}
    assert {bare(k): shape(v) for k, v in converted.items()} == network, part
    return network


def origins(file, convert):
    """Which tensor of the file each network tensor comes from: small ones in their place are filled with their numbers."""
    small = lambda k, v: [6 if i == 0 and ".in_proj_" in k else min(2, n) for i, n in enumerate(v.shape)]
    keys = list(file)
    numbered = {k: torch.full(small(k, file[k]), float(i)) for i, k in enumerate(keys)}
    found = {k: [] for k in keys}
    for name, value in convert(numbered).items():
        found[keys[int(value.flatten()[0])]].append(bare(name))
    return {k: names for k, names in found.items() if names}


def write(name, found, file, network, stems=None):
    shapes = {k: shape(file[k]) for k, names in found.items() if [shape(file[k])] != [network[n] for n in names]}
    # Names with a common beginning on one line each would be twice the size.
    lines = [f"{json.dumps(k)}:{json.dumps(v[0] if len(v) == 1 else v)}" for k, v in found.items()]
    out = HERE / "single_file" / f"{name}.json"
    out.parent.mkdir(exist_ok=True)
    unused = sorted(set(file) - set(found) - {k for stem in stems or () for k in file if k.startswith(stem)})
    more = "" if stems is None else f',\n"stems":{json.dumps(stems)}'
    out.write_text('{"names":{\n' + ",\n".join(lines) + f'\n}},\n"shapes":{json.dumps(shapes)},\n"unused":{json.dumps(unused)}{more}}}\n')
    print(out.name, len(found), "tensors of the file,", len(unused), "unused,", out.stat().st_size // 1000, "kB")


for part, of, convert in (("unet", unet_file, utils.convert_ldm_unet_checkpoint), ("vae", vae_file, utils.convert_ldm_vae_checkpoint)):
    both = []
    for name in ("sd-1.5", "sd-2.1"):
        config = config_of(name, part)
        file = of(config)
        config = {**build(part, config).config}
        network = check(part, config, convert(dict(file), config))
        both.append((file, config, network))
    assert list(both[0][0]) == list(both[1][0])
    file, config, network = both[0]
    found = origins(file, lambda f: convert(dict(f), config))
    write(part, found, file, network)

# SD 1.x: transformers' own names behind a prefix.
config = config_of("sd-1.5", "text_encoder")
plain = build("text_encoder", config).state_dict()
file = {f"cond_stage_model.transformer.text_model.{bare(k)}": v for k, v in plain.items()}
network = check("text_encoder", config, utils.convert_ldm_clip_checkpoint(dict(file)))
write("clip", origins(file, lambda f: utils.convert_ldm_clip_checkpoint(dict(f))), file, network)

config = config_of("sd-2.1", "text_encoder")
file, model = open_clip_file(config), build("text_encoder", config)
open_clip = lambda f: utils.convert_open_clip_checkpoint(model, dict(f))
network = check("text_encoder", config, open_clip(file))
write("open_clip", origins(file, open_clip), file, network)

# SDXL. Its VAE and its first text encoder have the names of SD 1.5's.
config = config_of("sdxl-1.0", "unet")
file = unet_file(config)
config = {**build("unet", config).config}
network = check("unet", config, utils.convert_ldm_unet_checkpoint(dict(file), config))
found = origins(file, lambda f: utils.convert_ldm_unet_checkpoint(dict(f), config))
stems = {}
for key, (name,) in [*found.items()]:
    head, inside, tail = key.partition(".transformer_blocks.")
    if inside:
        assert name.endswith(inside + tail), (key, name)
        stems[head + inside] = name.removesuffix(tail)
        del found[key]
write("unet_xl", found, file, network, stems)

config = config_of("sdxl-1.0", "vae")
check("vae", {**build("vae", config).config}, utils.convert_ldm_vae_checkpoint(vae_file(config), {**build("vae", config).config}))
config = config_of("sdxl-1.0", "text_encoder")
plain = build("text_encoder", config).state_dict()
file = {f"conditioner.embedders.0.transformer.text_model.{bare(k)}": v for k, v in plain.items()}
check("text_encoder", config, utils.convert_ldm_clip_checkpoint(dict(file)))

config, prefix = config_of("sdxl-1.0", "text_encoder_2"), "conditioner.embedders.1.model."
file, model = open_clip_file(config, prefix, unused=0), build("text_encoder_2", config)
open_clip = lambda f: utils.convert_open_clip_checkpoint(model, dict(f), prefix)
network = check("text_encoder_2", config, open_clip(file))
write("open_clip_g", origins(file, open_clip), file, network)
