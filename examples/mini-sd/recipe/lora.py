"""Low-rank changes of the U-Net's matrices and convolutions, as LoRA files in kohya's names and half precision."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.nn.utils import parametrize


class Factors(torch.nn.Module):
    """weight + up @ down: nothing at first, as `up` is zero; rows of `down` have length one in the mean."""

    def __init__(self, weight: torch.Tensor, rank: int):
        super().__init__()
        inner = weight[0].numel()
        rank = min(rank, len(weight), inner)
        self.up = torch.nn.Parameter(torch.zeros(len(weight), rank, device=weight.device))
        self.down = torch.nn.Parameter(torch.randn(rank, inner, device=weight.device) * inner ** -0.5)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + (self.up @ self.down).view(weight.shape)


def stem(weight_key: str) -> str:
    return "lora_unet_" + weight_key.removesuffix(".weight").replace(".", "_")


def attach(unet, rank: int, attention_only: bool = False) -> torch.nn.ModuleDict:
    """Freezes the network and gives every layer factors of its own; returns what is to be trained, by kohya's names."""
    unet.requires_grad_(False)
    factors = torch.nn.ModuleDict()
    for name, layer in list(unet.named_modules()):
        if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d)) and ("attn" in name or not attention_only):
            factors[stem(name)] = Factors(layer.weight, rank)
            parametrize.register_parametrization(layer, "weight", factors[stem(name)], unsafe=True)
    return factors


def save(factors: torch.nn.ModuleDict, dims: dict[str, torch.Size], path: Path) -> None:
    """dims: each layer's weight, by the same names. A convolution's factors have four dimensions."""
    tensors = {}
    for name, own in factors.items():
        up, down = own.up.detach(), own.down.detach()
        if len(dims[name]) == 4:
            up, down = up[..., None, None], down.view(len(down), *dims[name][1:])
        tensors[f"{name}.lora_down.weight"] = down.half().contiguous()
        tensors[f"{name}.lora_up.weight"] = up.half().contiguous()
        # The product is used times alpha / rank, so this is once.
        tensors[f"{name}.alpha"] = torch.tensor(float(len(down))).half()
    rank = str(max(len(own.down) for own in factors.values()))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"ss_network_dim": rank, "ss_network_alpha": rank,
                                       "ss_network_module": "networks.lora"})


def merge(unet, path: Path) -> None:
    """Adds a file's changes to the weights, by the definition."""
    lora, weights = load_file(path), unet.state_dict()
    for key in weights:
        if f"{stem(key)}.alpha" in lora:
            down, up = (lora[f"{stem(key)}.lora_{side}.weight"].float() for side in ("down", "up"))
            scale = lora[f"{stem(key)}.alpha"].float() / down.shape[0]
            weights[key] += scale * (up.flatten(1) @ down.flatten(1)).reshape(weights[key].shape)
    unet.load_state_dict(weights)


def extract(old: dict, new: dict, rank: int, path: Path) -> None:
    """What parts two U-Nets' matrices and convolutions, each cut to a low rank by its singular values.

    As people extract a LoRA from a fine-tuned model. Norms and biases are left out, as no LoRA holds them."""
    tensors, alpha = {}, rank / 2
    for key, before in old.items():
        change = new[key].double() - before.double()
        if change.ndim not in (2, 4) or change.abs().max() == 0:
            continue
        u, s, v = torch.linalg.svd(change.flatten(1), full_matrices=False)
        own = min(rank, len(s))
        up = u[:, :own] * s[:own].sqrt() / (alpha / own)
        down = s[:own].sqrt()[:, None] * v[:own]
        if change.ndim == 4:
            up, down = up[..., None, None], down.reshape(own, *change.shape[1:])
        tensors[f"{stem(key)}.lora_down.weight"] = down.half().contiguous()
        tensors[f"{stem(key)}.lora_up.weight"] = up.half().contiguous()
        tensors[f"{stem(key)}.alpha"] = torch.tensor(alpha).half()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"ss_network_dim": str(rank), "ss_network_alpha": str(alpha),
                                       "ss_network_module": "networks.lora"})
