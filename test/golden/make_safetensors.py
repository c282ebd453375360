"""Golden files for src/tensor/safetensors.ts, as Python's safetensors writes and torch rounds them.

    python test/golden/make_safetensors.py        (torch 2.13.0, safetensors 0.8.0)
"""
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
tiny = torch.finfo(torch.float16).smallest_normal
floats = torch.tensor([0.0, -0.0, 1.0, -1.5, 3.14159274, 1e-3, 65504.0, -65504.0, tiny, tiny / 3, 6e-8, 2.0**-24])
tensors = {
    "f32": floats,
    "f32.matrix": torch.arange(6, dtype=torch.float32).reshape(2, 3) / 7,
    "f16": floats.half(),
    "bf16": floats.bfloat16(),
    "f64": floats.half().double(),
    "i64": torch.tensor([[0, -1], [77, 2**24]]),
    "i32": torch.tensor([0, -1, 2**24], dtype=torch.int32),
    "i16": torch.tensor([-32768, 32767], dtype=torch.int16),
    "i8": torch.tensor([-128, 127], dtype=torch.int8),
    "u8": torch.tensor([0, 255, 7], dtype=torch.uint8),
    "bool": torch.tensor([True, False, True]),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 4),
}
names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64", torch.int64: "I64", torch.int32: "I32",
         torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}
metadata = {"format": "pt"}
save_file(tensors, HERE / "python.safetensors", metadata)
save_file({k: tensors[k] for k in ("f32", "f32.matrix")}, HERE / "python_f32.safetensors", metadata)

def number(v):
    return "-0" if v == 0 and str(v).startswith("-") else v

torch.manual_seed(0)
hard = torch.cat([
    floats,
    1 + torch.arange(0, 17) * 2.0**-12,                # ties between two float16
    1 + torch.arange(0, 17) * 2.0**-9,                 # ties between two bfloat16
    torch.arange(0, 9) * 2.0**-25,                     # ties between subnormal float16
    torch.tensor([65519.0, 65518.99, 2047.5, 2049.0, 2051.0, 1e-30]),
    torch.randn(200) * 10.0 ** torch.randint(-8, 4, (200,)),
])
out = {
    "made_by": "test/golden/make_safetensors.py, torch 2.13.0, safetensors 0.8.0",
    "metadata": metadata,
    "tensors": {k: {"dtype": names[t.dtype], "shape": list(t.shape), "values": [number(v) for v in t.float().flatten().tolist()]} for k, t in tensors.items()},
    "rounded": {"values": hard.tolist(), "F16": hard.half().view(torch.uint8).numpy().tobytes().hex(), "BF16": hard.bfloat16().view(torch.uint8).numpy().tobytes().hex()},
}
(HERE / "safetensors.json").write_text(json.dumps(out) + "\n")
