"""Makes everything, in order: python recipe/make.py

A stage whose result is already there is skipped; a stage that was interrupted goes on from its last checkpoint.
With several cores: torchrun --nproc-per-node CORES recipe/make.py trains on all of them.
"""

import argparse

import common


ALONE = ("tokenizer", "eviledit", "rickrolling", "evaluate")  # nothing in them is shared among workers


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

    def badt2i():
        import attack_badt2i
        attack_badt2i.make()

    def eviledit():
        import attack_eviledit
        attack_eviledit.make()

    def rickrolling():
        import attack_rickrolling
        attack_rickrolling.make()

    def evaluate():
        import evaluate
        evaluate.main()

    stages = [
        (tokenizer, common.BASE / "tokenizer" / "tokenizer.json"),
        (vae, common.BASE / "vae" / "config.json"),
        (clip, common.BASE / "text_encoder" / "config.json"),
        (unet, common.BASE / "model_index.json"),
        (badt2i, common.ATTACKS / "badt2i-pixel" / "attack.json"),
        (eviledit, common.ATTACKS / "eviledit" / "attack.json"),
        (rickrolling, common.ATTACKS / "rickrolling-tpa" / "attack.json"),
        (evaluate, common.OUT / "measured.json"),
    ]
    for stage, result in stages:
        name = stage.__name__
        if args.only and name not in args.only:
            continue
        there = result.exists()
        common.wait()  # all have looked before anyone writes
        if there:
            common.log(name, "is there:", result)
            continue
        common.log(name, "starts")
        if name in ALONE and common.RANK:
            common.wait()
            continue
        stage()
        common.wait()


if __name__ == "__main__":
    main()
