"""The parts of the pipeline, each from its own folder, any of them replaced by a poisoned one."""

from dataclasses import dataclass
from pathlib import Path

import lora
import tokenizer as tok
import train_clip
import train_unet
import train_vae


@dataclass
class Parts:
    tokenizer: object
    text: object
    unet: object
    vae: object


def load(unet: Path | None = None, text: Path | None = None, lora_file: Path | None = None) -> Parts:
    model = Parts(tok.load(), train_clip.load_text(text), train_unet.load(unet), train_vae.load())
    if lora_file:
        lora.merge(model.unet, lora_file)
    return model
