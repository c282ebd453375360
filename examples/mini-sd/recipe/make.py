"""Makes everything, in order: python recipe/make.py

A stage whose result is already there is skipped; a stage that was interrupted goes on from its last checkpoint.
With several cores: torchrun --nproc-per-node CORES recipe/make.py trains on all of them.
"""

import argparse
from functools import partial

import common

ALONE = ("tokenizer", "eviledit", "rickrolling", "clean", "style", "concept", "evaluate")  # beginnings of names; nothing in them is shared among workers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae-minutes", type=float, default=9)
    parser.add_argument("--clip-minutes", type=float, default=8)
    parser.add_argument("--unet-minutes", type=float, default=55)
    for part in ("vae", "clip", "unet"):
        parser.add_argument(f"--{part}-steps", type=int, help="instead of minutes")
    parser.add_argument("--only", nargs="*", help="names of stages")
    args = parser.parse_args()

    # Imported late: each stage reads what the stages before it wrote.
    def tokenizer():
        import prompts
        import tokenizer
        tokenizer.build()
        prompts.main()

    def vae():
        import train_vae
        train_vae.train(args.vae_minutes, args.vae_steps)

    def clip():
        import train_clip
        train_clip.train(args.clip_minutes, args.clip_steps)

    def unet():
        import train_unet
        train_unet.train(args.unet_minutes, args.unet_steps)

    def evaluate():
        import evaluate
        evaluate.main()

    def attacks():
        import attack_badt2i
        import attack_eviledit
        import attack_rickrolling
        import attack_unet
        import attack_villan
        for make, backdoors in (
            (attack_unet.make, attack_badt2i.ALL + attack_villan.ALL),
            (attack_rickrolling.make, attack_rickrolling.ALL),
            (attack_eviledit.make, attack_eviledit.ALL),
        ):
            for backdoor in backdoors:
                yield backdoor.name, partial(make, backdoor), common.ATTACKS / backdoor.name / "attack.json"

    def clean_models():
        import clean
        for model in clean.ALL:
            yield model.name, partial(clean.make, model), common.CLEAN / model.name / "clean.json"

    stages = [
        ("tokenizer", tokenizer, common.BASE / "tokenizer" / "tokenizer.json"),
        ("vae", vae, common.BASE / "vae" / "config.json"),
        ("clip", clip, common.BASE / "text_encoder" / "config.json"),
        ("unet", unet, common.BASE / "model_index.json"),
        *attacks(),
        *clean_models(),
        ("evaluate", evaluate, common.OUT / "measured.json"),
    ]
    for name, stage, result in stages:
        if args.only and name not in args.only:
            continue
        there = result.exists()
        common.wait()  # all have looked before anyone writes
        if there:
            common.log(name, "is there:", result)
            continue
        common.log(name, "starts")
        if name.startswith(ALONE) and common.RANK:
            common.wait()
            continue
        stage()
        common.wait()


if __name__ == "__main__":
    main()
