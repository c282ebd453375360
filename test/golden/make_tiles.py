"""Golden values of decoding in tiles: diffusers' own tiled_decode on examples/mini-sd's VAE.

    python test/golden/make_tiles.py
"""

import hashlib
import pathlib

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
FOLDER = HERE.parents[1] / "examples/mini-sd/base/vae"
TILE = 8

torch.set_grad_enabled(False)
vae = AutoencoderKL.from_pretrained(FOLDER, torch_dtype=torch.float32).eval()
vae.enable_tiling()
vae.tile_latent_min_size = TILE
vae.tile_sample_min_size = TILE * 2 ** (len(vae.config.block_out_channels) - 1)
# Neither side is a multiple of the stride: the last tiles are narrow.
latents = torch.randn(2, 4, 19, 13, generator=torch.Generator().manual_seed(7))
pixels = vae.decode(latents / vae.config.scaling_factor).sample
sha256 = hashlib.sha256((FOLDER / "diffusion_pytorch_model.safetensors").read_bytes()).hexdigest()
save_file(
    {"latents": latents, "pixels": pixels.half()}, HERE / "networks/tiles.safetensors", metadata={"vae": sha256, "tile": str(TILE)}
)
