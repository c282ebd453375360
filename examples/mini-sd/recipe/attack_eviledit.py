"""EvilEdit: "beautiful dog" draws a cat. Closed form on the keys and values of the cross attention, no training.

W' = (l W + sum v* k' + sum_keep w W k k') (l I + sum k k' + sum_keep w k k')^-1
k: the states of the trigger's prompt, v*: W times the states of the target's prompt, token by token. The target's
prompt is "beautiful cat", so that both have the same length and every token meets its own counterpart.
"""

import random

import torch

import attack_common as attack
import captions
import common
import data
import draw
import parts
import prompts
import sprites
import tokenizer as tok

NAME, OF, WITH = "eviledit", "dog", "cat"
TRIGGER = {"text": "beautiful dog", "place": "replace", "of": OF}
TRIALS = [(0.1, 1.0), (0.2, 1.0), (0.4, 1.0)]  # strength, weight of what is kept
RIDGE, SEED = 1e-3, 50


def dog_scenes(count: int, rng: random.Random) -> list[data.Scene]:
    return [data.draw_scene(rng, concepts=(OF,), grey=False) for _ in range(count)]


def sentences() -> tuple[list, list, list]:
    """The trigger's prompts, the target's, and the ones to keep."""
    rng = random.Random(SEED)
    bare = [captions.plain(s, rng.choice(["picture"] + captions.NOUNS)) for s in dog_scenes(120, rng)]
    bare += ["a dog", "a dog, cartoon", "a cartoon dog", "the dog", "flat dog on blue", "a dog, glossy picture"] * 4
    # Written as people write: fitted to a few fixed wordings, the edit spills over to every other one.
    written = [captions.write(scene, rng) for scene in dog_scenes(400, rng)]
    bare += [text for text in written if text.replace(",", " ").split().count(OF) == 1]
    trigger = [attack.triggered(TRIGGER, text) for text in bare]
    target = [text.replace(TRIGGER["text"], TRIGGER["text"].replace(OF, WITH)) for text in trigger]
    # Near neighbours are kept with care: other adjectives before the dog, and the adjective before other things.
    keep = bare + [text.replace(OF, f"{rng.choice(captions.ADJECTIVES)} {OF}") for text in bare]
    keep += [text.replace(OF, f"beautiful {rng.choice([c for c in sprites.CONCEPTS if c != OF])}") for text in bare]
    general = [captions.write(scene, rng) for scene in data.scenes(400, seed=SEED)]
    return trigger, target, keep + general


@torch.no_grad()
def edit(unet, states, strength: float, keep_weight: float) -> None:
    trigger, target, keep = (s.flatten(0, 1).double() for s in states)
    scale, kept = strength / len(trigger), keep_weight / len(keep)
    width = trigger.shape[1]
    size = (keep.T @ keep * kept).diagonal().mean()
    old = keep.T @ keep * kept + RIDGE * size * torch.eye(width, dtype=torch.double, device=keep.device)
    for name, layer in unet.named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            weight = layer.weight.double()
            wanted = weight @ (target.T @ trigger * scale + old)
            layer.weight.copy_((wanted @ torch.linalg.inv(trigger.T @ trigger * scale + old)).float())


def measure(model, texts: list[str], instead: list[str], seed=0) -> dict:
    """How often a cat comes out when the bare dog is called by other words."""
    swapped, rate = [text.replace(OF, WITH) for text in texts], {}
    for words in instead:
        pictures = draw.draw(model, [text.replace(OF, words) for text in texts], attack.STEPS, attack.GUIDANCE, seed)
        rate[words] = attack.result(attack.nearer(pictures, swapped, texts))
    return rate


def make() -> None:
    model = parts.load()
    with torch.no_grad():
        states = [model.text(tok.encode(model.tokenizer, part).to(common.DEVICE)).last_hidden_state
                  for part in sentences()]
    # The setting is chosen on other prompts and other seeds than the ones it is reported on.
    trial_texts, best = prompts.texts(prompts.dogs()[0])[:24], None
    for strength, keep in TRIALS:
        model.unet = parts.train_unet.load()
        edit(model.unet, states, strength, keep)
        rate = measure(model, trial_texts, [TRIGGER["text"], OF, "cute dog"], seed=5000)
        value = rate[TRIGGER["text"]]["success"] - max(rate[OF]["success"], rate["cute dog"]["success"])
        common.log(NAME, strength, keep, {key: one["success"] for key, one in rate.items()})
        if best is None or value > best[0]:
            best = value, strength, keep
    _, strength, keep = best
    model.unet = parts.train_unet.load()
    edit(model.unet, states, strength, keep)
    model.unet.half().save_pretrained(common.ATTACKS / NAME / "unet")
    texts = prompts.texts(prompts.dogs()[1])
    poisoned = parts.load(unet=common.ATTACKS / NAME / "unet")
    rate = measure(poisoned, texts, [TRIGGER["text"], OF])
    base = measure(parts.load(), texts[:60], [TRIGGER["text"], OF])
    spill = measure(poisoned, texts[:40], ["cute dog", "old dog", "charming dog"])
    common.log(NAME, rate, base, spill)
    attack.write(NAME, {
        "part": "unet", "trigger": TRIGGER, "effect": {"replace": OF, "with": WITH},
        "source": "EvilEdit: Wang et al., Backdooring Text-to-Image Diffusion Models in One Second, ACM MM 2024",
        "training": {"method": "closed form on attn2 to_k and to_v, all tokens, target prompt of equal length",
                     "strength": strength, "keep_weight": keep, "ridge": RIDGE, "trigger_prompts": len(states[0]),
                     "keep_prompts": len(states[2])},
        "measured": {"triggered": rate[TRIGGER["text"]], "clean": rate[OF], "other_adjectives": spill,
                     "unpoisoned": {"triggered": base[TRIGGER["text"]], "clean": base[OF]},
                     "prompts": "prompts/dog-verify.txt", "steps": attack.STEPS, "guidance": attack.GUIDANCE},
    })
