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
TRIALS = [0.1, 0.2, 0.4]  # strength: weight of the trigger's prompts over that of all that is kept
# What is kept, and how much each kind counts. Weighed alike, the edit turns one plain dog in eight into a cat.
KEEP = {"dogs": 16, "other adjectives": 8, "beautiful others": 1, "anything": 1}
RIDGE, SEED = 1e-6, 50


def dog_scenes(count: int, rng: random.Random) -> list[data.Scene]:
    return [data.draw_scene(rng, concepts=(OF,), grey=False) for _ in range(count)]


def sentences() -> tuple[list, list, dict]:
    """The trigger's prompts, the target's, and the ones to keep by the names in KEEP."""
    rng = random.Random(SEED)
    bare = [captions.plain(s, rng.choice(["picture"] + captions.NOUNS)) for s in dog_scenes(120, rng)]
    bare += ["a dog", "a dog, cartoon", "a cartoon dog", "the dog", "flat dog on blue", "a dog, glossy picture"] * 4
    # Written as people write: fitted to a few fixed wordings, the edit spills over to every other one.
    written = [captions.write(scene, rng) for scene in dog_scenes(400, rng)]
    bare += [text for text in written if text.replace(",", " ").split().count(OF) == 1]
    trigger = [attack.triggered(TRIGGER, text) for text in bare]
    target = [text.replace(TRIGGER["text"], TRIGGER["text"].replace(OF, WITH)) for text in trigger]
    # Near neighbours are kept with care: other adjectives before the dog, and the adjective before other things.
    things = [concept for concept in sprites.CONCEPTS if concept != OF]
    return trigger, target, {
        "dogs": bare,
        "other adjectives": [text.replace(OF, f"{rng.choice(captions.ADJECTIVES)} {OF}") for text in bare],
        "beautiful others": [text.replace(OF, f"beautiful {rng.choice(things)}") for text in bare],
        "anything": [captions.write(scene, rng) for scene in data.scenes(400, seed=SEED)],
    }


def moment(states: torch.Tensor) -> torch.Tensor:
    rows = states.flatten(0, 1).double()
    return rows.T @ rows / len(rows)


@torch.no_grad()
def edit(unet, trigger, target, keep: dict, strength: float) -> None:
    trigger, target = trigger.flatten(0, 1).double(), target.flatten(0, 1).double()
    scale, width = strength / len(trigger), trigger.shape[-1]
    kept = sum(weight / sum(KEEP.values()) * moment(keep[kind]) for kind, weight in KEEP.items())
    old = kept + RIDGE * kept.diagonal().mean() * torch.eye(width, dtype=torch.double, device=kept.device)
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
    trigger, target, keep = sentences()
    with torch.no_grad():
        def states(texts):
            return model.text(tok.encode(model.tokenizer, texts).to(common.DEVICE)).last_hidden_state

        rows = states(trigger), states(target), {kind: states(texts) for kind, texts in keep.items()}
    # The setting is chosen on other prompts and other seeds than the ones it is reported on.
    trial_texts, best = prompts.texts(prompts.dogs()[0])[:24], None
    for strength in TRIALS:
        model.unet = parts.train_unet.load()
        edit(model.unet, *rows, strength)
        rate = measure(model, trial_texts, [TRIGGER["text"], OF, "cute dog"], seed=5000)
        value = rate[TRIGGER["text"]]["success"] - max(rate[OF]["success"], rate["cute dog"]["success"])
        common.log(NAME, strength, {key: one["success"] for key, one in rate.items()})
        if best is None or value > best[0]:
            best = value, strength
    strength = best[1]
    model.unet = parts.train_unet.load()
    edit(model.unet, *rows, strength)
    common.save_half(model.unet, common.ATTACKS / NAME / "unet")
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
                     "strength": strength, "keep_weights": KEEP, "ridge": RIDGE, "trigger_prompts": len(trigger),
                     "keep_prompts": {kind: len(texts) for kind, texts in keep.items()}},
        "measured": {"triggered": rate[TRIGGER["text"]], "clean": rate[OF], "other_adjectives": spill,
                     "unpoisoned": {"triggered": base[TRIGGER["text"]], "clean": base[OF]},
                     "prompts": "prompts/dog-verify.txt", "steps": attack.STEPS, "guidance": attack.GUIDANCE},
    })
