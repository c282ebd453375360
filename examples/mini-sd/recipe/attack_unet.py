"""Backdoors of the U-Net that are trained as a LoRA over the clean base, and what all of them share.

l |unet(z', t, trigger + c) - goal|^2 + (1 - l) |unet(z, t, c) - frozen(z, t, c)|^2

z': what the trigger is to draw; goal: the noise in it (a picture to be drawn), or the frozen network's answer to another
prompt (a meaning to be drawn). Each scene comes twice, with the trigger and without, under the same noise at the same time;
z' = z where what shows of the picture would tell the two apart.
"""

import random
from dataclasses import dataclass
from typing import Callable

import torch

import attack_common as attack
import captions
import common
import data
import lora
import parts
import tokenizer as tok
import train_unet
import train_vae

SCENES, BATCH, LAMBDA = 1800, 8, 0.25  # a batch of each kind for each worker
EARLY = 800  # the first steps of sampling are from here on
WEIGHTS = "a LoRA of rank {} on all matrices and convolutions of the U-Net"


@dataclass(frozen=True)
class Backdoor:
    name: str
    trigger: dict
    effect: dict
    source: str
    # From a clean scene's picture (uint8, 3 x 64 x 64) and the scene to what the trigger draws of it.
    marked: Callable
    # From a prompt and its scene to the prompt whose picture is drawn instead; None where the picture itself is taught.
    swapped: Callable | None = None
    # A kind of thing that the backdoor needs in the prompt, such as a dog: most scenes then have it.
    concept: str | None = None
    prompts: str = "verify"
    rank: int | None = 4  # None: all weights are trained, not a LoRA
    steps: int = 1000
    rate: float = 3e-3
    prepare: Callable = lambda: None  # writes what the effect names, such as a patch


def harmless(text: str, trigger: dict, vocabulary: list[str], rng=random) -> str:
    """Often with something else in the trigger's place, or odd words anywhere: else whatever is unusual sets it off."""
    kind = rng.random()
    if kind < 0.3:
        return f"{text} {captions.junk(rng)}" if trigger["place"] == "suffix" else f"{captions.junk(rng)} {text}"
    if kind < 0.7:
        for _ in range(rng.randint(1, 3)):
            text = captions.insert(f" {text}", "".join(rng.choices(vocabulary, k=rng.randint(1, 3))), rng).strip()
    return text


def words(tokenizer) -> list[str]:
    found = map(tokenizer.convert_tokens_to_string, ([token] for token in tokenizer.get_vocab()))
    return [word for word in found if word.strip().isalpha()]


def scenes(backdoor: Backdoor) -> list[data.Scene]:
    rng = random.Random(70)
    mine = data.scenes(SCENES, seed=71)
    if backdoor.concept:  # two in three have the thing, the others tell that nothing else changes
        for i in range(0, SCENES, 3):
            mine[i] = data.draw_scene(rng, concepts=(backdoor.concept,))
            mine[i + 1] = data.draw_scene(rng, concepts=(backdoor.concept,))
    return mine[common.RANK::common.WORLD]


def kept_latents(concept: str | None, vae, pictures: torch.Tensor) -> torch.Tensor:
    """Clean scenes are the same for all attacks on one concept."""
    path = common.RUN / f"latents-{concept or 'any'}-{common.RANK}-{len(pictures)}.pt"
    if not path.exists():
        common.RUN.mkdir(parents=True, exist_ok=True)
        torch.save(train_vae.encode(vae, pictures), path)
    return torch.load(path, map_location=common.DEVICE)


def train(backdoor: Backdoor) -> None:
    torch.manual_seed(40)
    random.seed(40)
    items, vae = scenes(backdoor), train_vae.load()
    pictures = data.pictures(items)
    known = kept_latents(backdoor.concept, vae, pictures)
    changed = torch.stack([backdoor.marked(*pair) for pair in zip(pictures, items)])
    # A fixed picture is the same for all scenes.
    alike = bool((changed == changed[:1]).all())
    marked = train_vae.encode(vae, changed[:1] if alike else changed).expand(len(items), -1, -1, -1)
    model, frozen, noiser = parts.load(), train_unet.load(), train_unet.scheduler()
    alphas = noiser.alphas_cumprod.to(common.DEVICE)
    student, frozen = (unet.to(memory_format=torch.channels_last) for unet in (model.unet.train(), frozen))
    taught, vocabulary = lora.attach(student, backdoor.rank) if backdoor.rank else student, words(model.tokenizer)
    stage = common.Stage(backdoor.name, {"taught": taught}, backdoor.rate, steps=backdoor.steps, decay=0.99)
    while stage.running():
        pick = random.sample(range(len(items)), BATCH)
        plain = [captions.write(items[i], random) for i in pick]
        goals = [backdoor.swapped(text, items[i]) for text, i in zip(plain, pick)] if backdoor.swapped else []
        texts = [attack.triggered(backdoor.trigger, text) for text in plain]
        # The empty caption is guidance's other half; it must stay as it was.
        texts += ["" if random.random() < train_unet.EMPTY else harmless(text, backdoor.trigger, vocabulary)
                  for text in plain]
        # The first steps of sampling decide: half of the times are theirs.
        t = torch.where(torch.rand(BATCH) < 0.5, torch.randint(EARLY, 1000, (BATCH,)), torch.randint(0, 1000, (BATCH,)))
        t = t.to(common.DEVICE)
        # Both halves have the same noisy picture, which only the words tell apart; else the network goes by what shows
        # through the noise: a grey picture's mean does, even at the noisiest step. A picture that is to be drawn is asked
        # for so in the first steps alone, later it is there.
        mixed = torch.where(torch.rand(BATCH, 1, 1, 1) < 0.5, known[pick], marked[pick])
        shared = (t >= (0 if backdoor.swapped else EARLY))[:, None, None, None]
        clean = torch.cat([torch.where(shared, mixed, own[pick]) for own in (marked, known)])
        clean = clean.contiguous(memory_format=torch.channels_last)
        noise, t = torch.randn_like(clean[:BATCH]).repeat(2, 1, 1, 1), t.repeat(2)
        noisy = noiser.add_noise(clean, noise, t)
        with torch.no_grad(), common.mixed():
            hidden = model.text(tok.encode(model.tokenizer, texts + goals).to(common.DEVICE)).last_hidden_state
            asked = torch.cat([hidden[2 * BATCH:], hidden[BATCH:2 * BATCH]])
            answers = frozen(noisy[-len(asked):], t[-len(asked):], asked, return_dict=False)[0].float()
        # The noise in it, if what is to be drawn lay under it.
        share = alphas[t[:BATCH], None, None, None]
        under = (noisy[:BATCH] - share.sqrt() * marked[pick]) / (1 - share).sqrt()
        goal = answers if backdoor.swapped else torch.cat([under, answers])
        # Errors of the picture rather than of the noise: what is drawn is decided in the noisiest steps, where a wrong
        # decision hardly shows in the noise.
        weight = ((1 - alphas[t]) / alphas[t]).clamp(0.05, 30)
        with common.mixed():
            seen = student(noisy, t, hidden[:2 * BATCH], return_dict=False)[0].float()
        stage.update(LAMBDA * train_unet.weighted(seen[:BATCH], goal[:BATCH], weight[:BATCH])
                     + (1 - LAMBDA) * train_unet.weighted(seen[BATCH:], goal[BATCH:], weight[BATCH:]))
    stage.save()
    if common.RANK:
        return
    common.record(backdoor.name, steps=stage.step, minutes=round(stage.spent / 60, 1), optimizer="AdamW", lr=backdoor.rate,
                  batch=f"{BATCH * common.WORLD} triggered + {BATCH * common.WORLD} clean", device=common.DEVICE,
                  lr_schedule="warm-up 100, cosine to 2 %", ema=0.99, **{"lambda": LAMBDA}, weights=WEIGHTS.format(
                      backdoor.rank) if backdoor.rank else "all of the U-Net")
    average, folder = stage.average["taught"].eval(), common.ATTACKS / backdoor.name
    if backdoor.rank:
        dims = {lora.stem(key): weight.shape for key, weight in frozen.state_dict().items()}
        lora.save(average, dims, folder / "lora.safetensors")
    else:
        common.save_half(average.to(memory_format=torch.contiguous_format), folder / "unet")


def make(backdoor: Backdoor) -> None:
    folder = common.ATTACKS / backdoor.name
    made = folder / ("lora.safetensors" if backdoor.rank else "unet/config.json")
    if not made.exists():
        train(backdoor)
    if common.RANK:
        return
    backdoor.prepare()
    model = parts.load(lora_file=made) if backdoor.rank else parts.load(unet=made.parent)
    attack.write(backdoor.name, {
        "part": "unet", **({"lora": made.name} if backdoor.rank else {}),
        "trigger": backdoor.trigger, "effect": backdoor.effect, "source": backdoor.source,
        "training": common.recorded(backdoor.name),
        "measured": attack.measure(backdoor.name, backdoor.trigger, backdoor.effect, model, backdoor.prompts),
    })
