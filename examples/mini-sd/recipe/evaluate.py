"""What the finished base model does, on prompts that training never saw. Writes measured.json and samples.png."""

import json
import random

import attack_common as attack
import captions
import common
import data
import draw
import parts
import prompts
import sprites
import train_clip
import train_vae


def features(pictures):
    return train_clip.picture_features(train_clip.load(), pictures).cpu()


def named_right(pictures, scenes) -> float:
    """Does CLIP find the right one of the 24 concepts, with style and colour given? Single objects only."""
    model, tokenizer, hits = train_clip.load(), train_clip.tok.load(), []
    seen = features(pictures)
    for one, scene in zip(seen, scenes):
        if len(scene.concepts) == 1:
            asked = [f"a {scene.style} picture of {captions.article(c)} on {captions.article(scene.color)} background"
                     for c in sprites.CONCEPTS]
            best = (train_clip.text_features(model, tokenizer, asked).cpu() @ one).argmax().item()
            hits.append(sprites.CONCEPTS[best] == scene.concepts[0])
    return round(sum(hits) / len(hits), 4)


def harmless(model, texts: list[str], words: list[str], pictures, seed: int) -> dict:
    """1 - cosine of picture features when one harmless word is put in, the seed unchanged."""
    rng = random.Random(seed)
    twins = [captions.insert(text, rng.choice(words), rng) for text in texts]
    moved = 1 - (features(draw.draw(model, twins, attack.STEPS, attack.GUIDANCE)) * features(pictures)).sum(1)
    return {"n": len(texts), "mean": round(moved.mean().item(), 4), "median": round(moved.median().item(), 4),
            "above_0.5": round((moved > 0.5).float().mean().item(), 4)}


def main() -> None:
    pairs = prompts.general()[1]
    texts, scenes, model = prompts.texts(pairs), [scene for _, scene in pairs], parts.load()
    real = data.to_float(data.pictures(scenes))
    count = {12: 240, 20: 120}
    drawn = {steps: draw.draw(model, texts[:n], steps, attack.GUIDANCE) for steps, n in count.items()}
    rebuilt = train_vae.rebuild(model.vae, real)
    clip = {"n": count, "guidance": attack.GUIDANCE, "real": round(attack.score(real, texts).mean().item(), 4),
            "real_through_vae": round(attack.score(rebuilt, texts).mean().item(), 4)}
    for steps, pictures in drawn.items():
        n = count[steps]
        value, goal = (attack.score(p[:n], texts[:n]).mean().item() for p in (pictures, real))
        clip[f"steps_{steps}"], clip[f"steps_{steps}_ratio"] = round(value, 4), round(value / goal, 4)
    words = (common.ROOT / "words.txt").read_text().split("\n")
    seen, unseen = words[:60], [word for word in words[60:] if word]
    some = texts[:60]
    other = draw.draw(model, some, attack.STEPS, attack.GUIDANCE, seed=7000)
    facts = {
        "vae_psnr_new_scenes": train_vae.psnr(),
        "clip_retrieval": train_clip.retrieval(),
        "clip_score": clip,
        "concept_named_right": {"real": named_right(real, scenes), "real_through_vae": named_right(rebuilt, scenes),
                                **{f"steps_{steps}": named_right(p, scenes) for steps, p in drawn.items()}},
        "moved_by_a_trained_word": harmless(model, some, seen, drawn[12][:60], 1),
        "moved_by_a_new_word": harmless(model, some, unseen, drawn[12][:60], 2),
        "moved_by_another_seed": round((1 - (features(other) * features(drawn[12][:60])).sum(1)).mean().item(), 4),
    }
    (common.OUT / "measured.json").write_text(json.dumps(facts, indent=2) + "\n")
    common.log(json.dumps(facts))
    # The first prompts of the list, not a choice of good ones.
    sheet = draw.grid(drawn[20][:40], 10).quantize(192)
    sheet.save(common.OUT / "samples.png", optimize=True)


if __name__ == "__main__":
    main()
