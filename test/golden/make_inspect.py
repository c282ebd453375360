"""Golden values of `sau inspect`: singular values, figures of tensors, ranks of changes, from numpy in double precision.

    python test/golden/make_inspect.py
"""
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

here = Path(__file__).parent
mini = here.parent.parent / "examples" / "mini-sd"


def pattern(m, n):
    """A matrix of whole numbers that any language makes alike."""
    i, j = np.arange(m)[:, None], np.arange(n)[None, :]
    return ((i * 31 + j * 17 + i * j * 7 + i * i * 3) % 101 - 50).astype(np.float64)


def decaying(m, n, count, base):
    """Singular values that fall off: columns and rows of whole numbers, each pair weaker than the one before."""
    out = np.zeros((m, n))
    for k in range(count):
        u = ((np.arange(m) * (2 * k + 3) + k) % 97 - 48) / 48
        v = ((np.arange(n) * (2 * k + 5) + 3 * k) % 89 - 44) / 44
        out += base**-k * np.outer(u, v)
    return out.astype(np.float32).astype(np.float64)


def energies(a):
    return (np.linalg.svd(a, compute_uv=False) ** 2).tolist()


def rank_for(values, total, share, noise):
    goal = share * max(0.0, total - noise)
    held = np.concatenate([[0.0], np.cumsum(values)])
    return int(np.argmax(held >= goal * (1 - 1e-12)))


def change(a, b):
    """Relative change, the energy that rounding to float16 would have, and ranks, of two float16 tensors."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    d = y - x
    exponent = np.maximum(np.floor(np.log2(np.maximum(np.abs(x), 2.0**-30))), -14)
    rounding = float((np.where(d != 0, (2.0 ** (exponent - 10)) ** 2 / 12, 0)).sum())
    values = np.linalg.svd(d.reshape(d.shape[0], -1), compute_uv=False) ** 2
    total = float(values.sum())
    return {
        "relative": float(np.linalg.norm(d) / np.linalg.norm(x)),
        "of99": rank_for(values, total, 0.99, rounding),
        "of9999": rank_for(values, total, 0.9999, rounding),
        "leading": float(np.sqrt(values[0] / total)),
    }


base = load_file(mini / "base" / "unet" / "diffusion_pytorch_model.safetensors")
figures = {}
for key in sorted(base)[::12]:
    x = base[key].astype(np.float64)
    figures[key] = {"rms": float(np.sqrt((x**2).mean())), "mean": float(x.mean()), "min": float(x.min()), "max": float(x.max())}

changes = {}
for attack in ["eviledit", "badt2i-pixel"]:
    other = load_file(mini / "attacks" / attack / "unet" / "diffusion_pytorch_model.safetensors")
    moved = [k for k in sorted(base) if base[k].ndim > 1 and (base[k] != other[k]).any()]
    changes[attack] = {key: change(base[key], other[key]) for key in moved[:: max(1, len(moved) // 16)]}

golden = {
    "exact": [{"m": m, "n": n, "energies": energies(pattern(m, n))} for m, n in [(7, 5), (5, 40), (64, 190)]],
    "decaying": [
        {"m": m, "n": n, "count": c, "base": b, "energies": energies(decaying(m, n, c, b))[:64]}
        for m, n, c, b in [(210, 330, 6, 1.5), (400, 200, 30, 1.3), (256, 256, 20, 2), (300, 260, 90, 1.06)]
    ],
    "figures": figures,
    "changes": changes,
}
(here / "inspect.json").write_text(json.dumps(golden, indent=1) + "\n")
