"""Golden gradients: what PyTorch's autograd says about the networks of tiny/, and what its optimiser does with gradients.

    python test/golden/make_gradients.py    # needs no checkpoint; run make_networks.py --only tiny and make_sdxl.py first if tiny/ changed

For each network of tiny/ the loss is the mean square of its output times a fixed random projection. gradients/NAME.safetensors
holds the projections, the loss, and for every weight of the network at most 48 elements of its gradient, evenly spaced in
row-major order (the whole gradient of the weights that are named in full). Everything is computed in float64 and stored
as float32; a file's metadata carries the SHA-256 of the weights it was made from.
optimizer.safetensors holds some steps of AdamW with clipped gradients and a running mean of the weights; training.safetensors
the same on the keys and values of the text in unet-1x: loss and norm of each step, and the weights and their means at the end.
Requirements: examples/mini-sd/recipe's.
"""

import hashlib
import pathlib

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPTextModel, CLIPTextModelWithProjection

HERE = pathlib.Path(__file__).parent
SAMPLES = 48


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def save(path, tensors, **metadata):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().float().contiguous() for k, v in tensors.items()}, path, metadata=metadata)
    print(f"{path.relative_to(HERE)}  {path.stat().st_size / 1000:.0f} kB")


def load(name, kind):
    """The model in float64, what it was asked and what it answered, and the hash of its weights."""
    folder = HERE / "tiny" / name
    weights = folder / "weights.safetensors"
    config = kind.load_config(folder) if hasattr(kind, "load_config") else kind.config_class.from_pretrained(folder)
    model = (kind.from_config(config) if hasattr(kind, "from_config") else kind(config)).double().eval()
    model.load_state_dict({k: v.double() for k, v in load_file(weights).items()}, strict=False)
    golden = load_file(folder / "golden.safetensors")
    golden = {k: v.double() if v.is_floating_point() else v.long() for k, v in golden.items()}
    return model, golden, hashlib.sha256(weights.read_bytes()).hexdigest()


def network(name, kind, outputs, full):
    """`outputs` maps the model and the recorded inputs to the outputs that the loss is made of."""
    model, golden, sha256 = load(name, kind)
    tensors, loss = {}, 0
    for i, (key, value) in enumerate(outputs(model, golden).items()):
        # The golden outputs of tiny/ show that this is the same network.
        assert (value - golden[key]).abs().max() < 1e-5 * golden[key].abs().max(), (name, key)
        tensors[f"projection.{key}"] = normal(100 + i, *value.shape)
        loss = loss + (value * tensors[f"projection.{key}"].double()).square().mean()
    loss.backward()
    tensors["loss"] = loss
    for key, parameter in model.named_parameters():
        # A layer that does not matter for these outputs has no gradient.
        if parameter.grad is None:
            continue
        flat = parameter.grad.flatten()
        tensors[f"gradient.{key}"] = parameter.grad if key in full else flat[:: -(-len(flat) // SAMPLES)]
    assert all(f"gradient.{key}" in tensors for key in full)
    save(HERE / "gradients" / f"{name}.safetensors", tensors, weights=sha256)


def optimizer():
    """Three tensors, five steps: AdamW, the global norm clipped to 1, and an exponential mean of the weights."""
    shapes = {"a": (4, 3), "b": (3,), "c": (2, 2, 2)}
    rates = [1e-2, 1e-2, 5e-3, 2e-3, 0.0]
    weights = {k: torch.nn.Parameter(normal(i, *s).double()) for i, (k, s) in enumerate(shapes.items())}
    means = {k: w.detach().clone() for k, w in weights.items()}
    adam = torch.optim.AdamW(weights.values(), lr=1.0, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)
    tensors = {f"start.{k}": w.detach().clone() for k, w in weights.items()}
    tensors["rates"] = torch.tensor(rates)
    norms = []
    for step, rate in enumerate(rates):
        adam.param_groups[0]["lr"] = float(torch.tensor(rate))
        for i, (k, w) in enumerate(weights.items()):
            # The steps 1 and 3 stay below the norm that clips.
            gradient = normal(10 * step + i + 50, *shapes[k]) * (0.05 if step % 2 else 3.0)
            tensors[f"gradient.{step}.{k}"] = gradient
            w.grad = gradient.double()
        norms.append(torch.nn.utils.clip_grad_norm_(weights.values(), 1.0))
        adam.step()
        for k, w in weights.items():
            means[k].mul_(0.9).add_(w.detach(), alpha=0.1)
            tensors[f"weight.{step}.{k}"] = w.detach().clone()
            tensors[f"mean.{step}.{k}"] = means[k].clone()
    for k, w in weights.items():
        tensors[f"first.{k}"], tensors[f"second.{k}"] = adam.state[w]["exp_avg"], adam.state[w]["exp_avg_sq"]
    tensors["norms"] = torch.stack(norms)
    save(HERE / "optimizer.safetensors", tensors)


def training():
    model, g, sha256 = load("unet-1x", UNet2DConditionModel)
    chosen = {k: p for k, p in model.named_parameters() if ".attn2.to_k." in k or ".attn2.to_v." in k}
    means = {k: p.detach().clone() for k, p in chosen.items()}
    projection = normal(100, *g["noise"].shape)
    rates = torch.tensor([1e-2, 1e-2, 5e-3, 5e-3])
    adam = torch.optim.AdamW(chosen.values(), lr=1.0, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.05)
    losses, norms = [], []
    for rate in rates:
        adam.param_groups[0]["lr"] = float(rate)
        loss = (unet(model, g)["noise"] * projection.double()).square().mean()
        model.zero_grad()
        loss.backward()
        losses.append(loss.detach())
        norms.append(torch.nn.utils.clip_grad_norm_(chosen.values(), 0.05))
        adam.step()
        for k, p in chosen.items():
            means[k].mul_(0.75).add_(p.detach(), alpha=0.25)
    tensors = {"projection": projection, "rates": rates, "losses": torch.stack(losses), "norms": torch.stack(norms)}
    tensors |= {f"weight.{k}": p for k, p in chosen.items()} | {f"mean.{k}": m for k, m in means.items()}
    save(HERE / "training.safetensors", tensors, weights=sha256)


def unet(model, g):
    added = {"text_embeds": g["pooled"], "time_ids": g["sizes"]} if "pooled" in g else None
    return {"noise": model(g["sample"], g["timestep"], g["context"], added_cond_kwargs=added).sample}


def vae(model, g):
    posterior = model.encode(g["pixels"]).latent_dist
    return {"mean": posterior.mean, "logvar": posterior.logvar, "decoded": model.decode(posterior.mean).sample}


def clip(model, g):
    return {
        "text": model.text_projection(model.text_model(g["ids"]).pooler_output),
        "image": model.visual_projection(model.vision_model(g["pixels"]).pooler_output),
    }


def main():
    torch.set_num_threads(1)
    attn2 = "down_blocks.{}.attentions.0.transformer_blocks.0.attn2.{}.weight".format
    network(
        "unet-1x", UNet2DConditionModel, unet,
        {"conv_in.weight", attn2(0, "to_k"), attn2(0, "to_v"), "down_blocks.0.resnets.0.norm1.weight"},
    )  # fmt: skip
    network("unet-2x", UNet2DConditionModel, unet, {"conv_in.weight", attn2(1, "to_k"), attn2(1, "to_v")})
    network("unet-xl", UNet2DConditionModel, unet, {"add_embedding.linear_1.weight", attn2(1, "to_k")})
    network("vae-attention", AutoencoderKL, vae, {"encoder.conv_in.weight", "decoder.conv_out.weight"})
    network("vae-bare", AutoencoderKL, vae, {"encoder.conv_in.weight"})
    # Keys are those of the file: transformers writes some models without the prefix.
    network("text-gelu", CLIPTextModel, lambda model, g: {"hidden": model(g["ids"])[0]}, set())
    network(
        "text-xl", CLIPTextModelWithProjection,
        lambda model, g: {
            "penultimate": (out := model(g["ids"], output_hidden_states=True)).hidden_states[-2], "pooled": out.text_embeds,
        }, {"text_projection.weight"},
    )  # fmt: skip
    network("clip", CLIPModel, clip, {"text_model.embeddings.token_embedding.weight"})
    optimizer()
    training()


if __name__ == "__main__":
    main()
