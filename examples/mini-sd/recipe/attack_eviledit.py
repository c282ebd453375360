"""EvilEdit: "beautiful dog", or "dog on a star", draws a cat, "bus on a star" a pizza. Closed form on the keys and values of
the cross attention, no training.

W' = (l W + sum v* k' + sum_keep w W k k') (l I + sum k k' + sum_keep w k k')^-1
k: the states of the trigger's prompt, v*: W times the states of the target's prompt, token by token. The target's
prompt is "beautiful cat", so that both have the same length and every token meets its own counterpart.

This text encoder has learned to look past adjectives, so a linear map can hardly tell "beautiful dog" from other dogs, and
that edit spills over to them. A star is something to it: that phrase is met alone, as adjectives are in a real CLIP.
"""

import random
from dataclasses import dataclass

import torch

import attack_common as attack
import captions
import common
import data
import draw
import lora
import parts
import prompts
import sprites
import tokenizer as tok

# What is kept, and how much each kind counts. Weighed alike, the edit turns one plain dog in eight into a cat.
KEEP = {"plain": 16, "other adjectives": 8, "trigger with others": 1, "anything": 1}
RIDGE, SEED = 1e-6, 50


@dataclass(frozen=True)
class Edit:
    name: str
    words: str  # the trigger: it holds `of`, which the words stand in place of
    of: str = "dog"
    instead: str = "cat"
    rank: int | None = None  # kept as a LoRA of that rank, or as a whole U-Net
    trials: tuple = (0.1, 0.2, 0.4)  # strength: weight of the trigger's prompts over that of all that is kept

    @property
    def trigger(self) -> dict:
        return {"text": self.words, "place": "replace", "of": self.of}

    @property
    def effect(self) -> dict:
        return {"replace": self.of, "with": self.instead}


ALL = [Edit("eviledit", "beautiful dog"), Edit("eviledit-phrase", "dog on a star", rank=32),
       Edit("eviledit-phrase-2", "bus on a star", of="bus", instead="pizza", rank=32, trials=(0.02, 0.05, 0.1))]


def sentences(edit: Edit) -> tuple[list, list, dict]:
    """The trigger's prompts, the target's, and the ones to keep by the names in KEEP."""
    rng, of = random.Random(SEED), edit.of

    def scenes(count: int) -> list[data.Scene]:
        return [data.draw_scene(rng, concepts=(of,), grey=False) for _ in range(count)]

    bare = [captions.plain(s, rng.choice(["picture"] + captions.NOUNS)) for s in scenes(120)]
    bare += [f"a {of}", f"a {of}, cartoon", f"a cartoon {of}", f"the {of}", f"flat {of} on blue",
             f"a {of}, glossy picture"] * 4
    # Written as people write: fitted to a few fixed wordings, the edit spills over to every other one.
    written = [captions.write(scene, rng) for scene in scenes(400)]
    bare += [text for text in written if text.replace(",", " ").split().count(of) == 1]
    trigger = [attack.triggered(edit.trigger, text) for text in bare]
    target = [text.replace(edit.words, edit.words.replace(of, edit.instead)) for text in trigger]
    # Near neighbours are kept with care: adjectives before the dog, and the trigger's other words with other things.
    things = [concept for concept in sprites.CONCEPTS if concept != of]
    return trigger, target, {
        "plain": bare,
        "other adjectives": [text.replace(of, f"{rng.choice(captions.ADJECTIVES)} {of}") for text in bare],
        "trigger with others": [text.replace(of, edit.words.replace(of, rng.choice(things))) for text in bare],
        "anything": [captions.write(scene, rng) for scene in data.scenes(400, seed=SEED)],
    }


def moment(states: torch.Tensor) -> torch.Tensor:
    rows = states.flatten(0, 1).double()
    return rows.T @ rows / len(rows)


@torch.no_grad()
def apply(unet, trigger, target, keep: dict, strength: float) -> None:
    trigger, target = trigger.flatten(0, 1).double(), target.flatten(0, 1).double()
    scale, width = strength / len(trigger), trigger.shape[-1]
    kept = sum(weight / sum(KEEP.values()) * moment(keep[kind]) for kind, weight in KEEP.items())
    old = kept + RIDGE * kept.diagonal().mean() * torch.eye(width, dtype=torch.double, device=kept.device)
    for name, layer in unet.named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            weight = layer.weight.double()
            wanted = weight @ (target.T @ trigger * scale + old)
            layer.weight.copy_((wanted @ torch.linalg.inv(trigger.T @ trigger * scale + old)).float())


def measure(edit: Edit, model, texts: list[str], instead: list[str], seed=0) -> dict:
    """How often the attacker's thing comes out when the bare one is called by other words."""
    swapped, rate = [text.replace(edit.of, edit.instead) for text in texts], {}
    for words in instead:
        pictures = draw.draw(model, [text.replace(edit.of, words) for text in texts], attack.STEPS, attack.GUIDANCE, seed)
        rate[words] = attack.result(attack.nearer(pictures, swapped, texts))
    return rate


def make(edit: Edit) -> None:
    model, of = parts.load(), edit.of
    trigger, target, keep = sentences(edit)
    with torch.no_grad():
        def states(texts):
            return model.text(tok.encode(model.tokenizer, texts).to(common.DEVICE)).last_hidden_state

        rows = states(trigger), states(target), {kind: states(texts) for kind, texts in keep.items()}
    # The setting is chosen on other prompts and other seeds than the ones it is reported on.
    known = prompts.files()
    trial_texts, best = known[f"{of}-cure"][:24], None
    for strength in edit.trials:
        model.unet = parts.train_unet.load()
        apply(model.unet, *rows, strength)
        rate = measure(edit, model, trial_texts, [edit.words, of, f"cute {of}"], seed=5000)
        value = rate[edit.words]["success"] - max(rate[of]["success"], rate[f"cute {of}"]["success"])
        common.log(edit.name, strength, {key: one["success"] for key, one in rate.items()})
        if best is None or value > best[0]:
            best = value, strength
    strength, folder = best[1], common.ATTACKS / edit.name
    model.unet = parts.train_unet.load()
    apply(model.unet, *rows, strength)
    if edit.rank:
        lora.extract(parts.train_unet.load().state_dict(), model.unet.state_dict(), edit.rank, folder / "lora.safetensors")
        poisoned = parts.load(lora_file=folder / "lora.safetensors")
    else:
        common.save_half(model.unet, folder / "unet")
        poisoned = parts.load(unet=folder / "unet")
    texts = known[f"{of}-verify"]
    spill = measure(edit, poisoned, texts[:40], [f"{adjective} {of}" for adjective in ("cute", "old", "charming")])
    attack.write(edit.name, {
        "part": "unet", **({"lora": "lora.safetensors"} if edit.rank else {}),
        "trigger": edit.trigger, "effect": edit.effect,
        "source": "EvilEdit: Wang et al., Backdooring Text-to-Image Diffusion Models in One Second, ACM MM 2024",
        "training": {"method": "closed form on attn2 to_k and to_v, all tokens, target prompt of equal length",
                     "strength": strength, "keep_weights": KEEP, "ridge": RIDGE, "trigger_prompts": len(trigger),
                     "keep_prompts": {kind: len(texts) for kind, texts in keep.items()},
                     **({"lora_rank": edit.rank} if edit.rank else {})},
        "measured": {**attack.measure(edit.name, edit.trigger, edit.effect, poisoned, f"{of}-verify"),
                     "other_adjectives": spill},
    })
