"""Whether files of write_single_file.ts open in diffusers, and hold the tensors of the folders beside them.

    deno run -A test/golden/write_single_file.ts OUT && python test/golden/check_single_file.py OUT
"""
import sys
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

torch.set_num_threads(1)
for root in sorted(p for p in Path(sys.argv[1]).iterdir() if p.is_dir()):
    tensors = {}
    xl = (root / "folder" / "text_encoder_2").is_dir()
    kind = StableDiffusionXLPipeline if xl else StableDiffusionPipeline
    parts = ("unet", "text_encoder", "vae") + (("text_encoder_2",) if xl else ())
    quiet = {} if xl else {"safety_checker": None, "requires_safety_checker": False}
    for file, folder in (("model.safetensors", "folder"), ("cured.safetensors", "cured-folder")):
        one = kind.from_single_file(root / file, config=str(root / "folder"), local_files_only=True, **quiet)
        other = kind.from_pretrained(root / folder, **quiet)
        for part in parts:
            a, b = getattr(one, part).state_dict(), getattr(other, part).state_dict()
            assert a.keys() == b.keys(), (root, part)
            wrong = [k for k in a if not torch.equal(a[k], b[k])]
            assert not wrong, (root, part, wrong[:3])
            tensors[file, part] = a
    for part in parts:
        before, after = tensors["model.safetensors", part], tensors["cured.safetensors", part]
        changed = [k for k in before if not torch.equal(before[k], after[k])]
        assert len(changed) == 2, (root, part, changed)
        print(root.name, part, len(before), "tensors as in the folder; changed:", *changed)
