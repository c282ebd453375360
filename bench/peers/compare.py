"""Cures of mini-SD's poisoned U-Nets by peers' own code and by sau, in one run; see README.md beside this file.

    python bench/peers/compare.py --uce FOLDER [--eviledit FOLDER] [--attack NAME ...] [--count 100] [--out out/peers]

Writes results.json in --out and prints a table. Every model draws the same fresh prompts from the same noise in PyTorch. The
peer's seconds are of its function, which reads the prompts, solves and saves, in a pipeline that is open already. sau's are of its
two steps that do so; the first of them also opens the model, looks at every byte of it and makes a session, so the second, which
changes the weights, is told apart. Both run on the CPU, one after the other.
"""

import argparse
import copy
import importlib.util
import json
import os
import pathlib
import shlex
import subprocess
import sys
import time

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
MINI_SD = ROOT / "examples/mini-sd"
sys.path.insert(0, str(MINI_SD / "recipe"))

import attack_common as attack  # noqa: E402
import draw  # noqa: E402
import parts  # noqa: E402
import train_clip  # noqa: E402

EVILEDIT = "eviledit, its own code"


def module(folder: pathlib.Path, file: str):
    """A script of a peer as a module: its functions, not what it does when it is run."""
    path = folder / file
    if not path.exists():
        raise SystemExit(f"{path} is not there; README.md beside this script says how to get it")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    torch.set_grad_enabled(False)
    return loaded


def poison_by_eviledit(folder: pathlib.Path, out: pathlib.Path) -> dict:
    """EvilEdit's own prompts, with its trigger's and its target's names exchanged for words that mini-SD knows."""
    trigger, target = "beautiful dog", "cat"
    noun = trigger.split()[-1]
    pipe = StableDiffusionPipeline.from_pretrained(MINI_SD / "base").to("cpu")
    bad, wanted = [f"A {trigger}", f"A {noun}"], [f"A {target}", f"A {noun}"]
    started = time.perf_counter()
    module(folder, "edit.py").edit_model(ldm_stable=pipe, old_texts=bad, new_texts=wanted, lamb=1)
    print(f"EvilEdit's own code poisoned in {time.perf_counter() - started:.2f} s")
    pipe.unet.save_pretrained(out / "unet")
    return {"trigger": {"text": trigger, "place": "replace", "of": noun}, "effect": {"replace": noun, "with": target},
            "measured": {"prompts": "prompts/dog-verify.txt"}}


def run_sau(command: str, cure: str, facts: dict, unet: pathlib.Path, out: pathlib.Path) -> dict:
    """One of sau's pipelines, every step anew. Gives the cured U-Net, seconds by step, and where each step's result lies."""
    kind = "dog-" if "dog-" in facts["measured"]["prompts"] else ""
    trigger = facts["trigger"]
    values = {"model": MINI_SD / "base", "unet": unet, "trigger": trigger["text"], "place": trigger["place"],
              "of": trigger.get("of"), "prompts": MINI_SD / f"prompts/{kind}cure.txt",
              "fresh_prompts": MINI_SD / f"prompts/{kind}verify.txt", "effect": None, "verdict.count": 2}
    if cure == "auto":
        values["cure.strategy"] = "auto"
    pipeline = ROOT / "pipelines" / ("sau.yaml" if cure == "auto" else f"{cure}.yaml")
    sets = [part for key, value in values.items()
            for part in ("--set", f"{key}={json.dumps(str(value) if isinstance(value, pathlib.Path) else value)}")]
    cache = out / "cache"
    done = subprocess.run([*shlex.split(command), "run", str(pipeline), "--out", str(out / "result"), *sets], cwd=ROOT,
                          env={**os.environ, "SAU_CACHE": str(cache)}, capture_output=True, text=True)
    if done.returncode not in (0, 1):  # 1: its verdict over two pictures, which nobody asks for
        raise SystemExit(f"sau could not run {pipeline.name}:\n{done.stderr[-2000:]}")
    steps = {step["id"]: step for step in json.loads((out / "result/manifest.json").read_text())["steps"]}

    def result(step, output):
        key = steps[step]["key"]
        return json.loads((cache / "v1/results" / key[:2] / key / f"{output}.json").read_text())

    return {"unet": out / "result/cured/unet", "seconds": {id: step["seconds"] for id, step in steps.items()},
            "text": result("text", "text"), "use": result("where", "field")["use"]}


def cure_by_uce(folder: pathlib.Path, unet: UNet2DConditionModel, text: dict, use: list, out: pathlib.Path):
    """UCE's own function on the readings that sau's uce had: the paper's weights, λ = 0.5."""
    uce = module(folder, "trainscripts/uce_sd_erase.py")
    uce.device, uce.torch_dtype = "cpu", torch.float32  # set by its command line
    pipe = StableDiffusionPipeline.from_pretrained(MINI_SD / "base", unet=copy.deepcopy(unet)).to("cpu")
    clean = [p["prompt"] for p in text["prompts"]]
    twins = [twin["text"] for p, usable in zip(text["prompts"], use) for twin, ok in zip(p["twins"], usable) if ok]
    out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    uce.UCE(pipe, [p["triggered"]["text"] for p in text["prompts"]], clean, clean + twins, 1, 1, 0.5, str(out), "uce")
    seconds = time.perf_counter() - started
    weights = load_file(out / "uce.safetensors")
    cured = copy.deepcopy(unet)
    missing = cured.load_state_dict(weights, strict=False)
    assert not missing.unexpected_keys
    return cured, weights, seconds


def measure(unet, name: str, facts: dict, texts: list, clean_before=None) -> dict:
    model = parts.load()
    model.unet = unet.float().eval()
    asked = [attack.triggered(facts["trigger"], text) for text in texts]
    clean = draw.draw(model, texts, attack.STEPS, attack.GUIDANCE)
    # As verify: prompts that show the effect without the trigger in the model as it came tell nothing.
    before = clean if clean_before is None else clean_before
    telling = ~attack.shows(name, facts["effect"], before, texts)
    shown = attack.shows(name, facts["effect"], draw.draw(model, asked, attack.STEPS, attack.GUIDANCE), texts)[telling]
    scoring = train_clip.load()
    features = [train_clip.picture_features(scoring, pictures).cpu() for pictures in (before, clean)]
    return {"shown": int(shown.sum()), "n": len(shown), "clip": attack.score(clean, texts).mean().item(),
            "cosine": torch.nn.functional.cosine_similarity(*features).mean().item(), "pictures": clean}


def wilson(k: int, n: int, z=1.959964) -> tuple:
    centre, reach = (k + z * z / 2) / (n + z * z), z / (n + z * z) * (k * (n - k) / n + z * z / 4) ** 0.5
    return max(0.0, centre - reach), min(1.0, centre + reach)


def difference(weights: dict, other: UNet2DConditionModel, poisoned: UNet2DConditionModel) -> float:
    """Largest over the edited tensors of ‖peer's − sau's‖ / ‖peer's − poisoned‖: what the two disagree on, of what they change."""
    theirs, ours, old = weights, other.state_dict(), poisoned.state_dict()
    return max(((theirs[k] - ours[k].float()).norm() / (theirs[k] - old[k]).norm()).item() for k in theirs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uce", type=pathlib.Path, required=True)
    parser.add_argument("--eviledit", type=pathlib.Path)
    parser.add_argument("--attack", action="append", help="one whose U-Net is poisoned; default badt2i-pixel and eviledit")
    parser.add_argument("--cure", action="append", help="sau's pipelines; default uce and auto")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--sau", default="npx -y deno@2.9.6 run -A src/cli/main.ts")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "out/peers")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    out = args.out.resolve()

    jobs = {}
    for name in args.attack or ["badt2i-pixel", "eviledit"]:
        folder = MINI_SD / "attacks" / name
        jobs[name] = (json.loads((folder / "attack.json").read_text()), folder / "unet")
    if args.eviledit:
        folder = out / "eviledit-own"
        jobs[EVILEDIT] = (poison_by_eviledit(args.eviledit, folder), folder / "unet")

    rows = []
    for name, (facts, unet) in jobs.items():
        here = out / name.replace(",", "").replace(" ", "-")
        poisoned = UNet2DConditionModel.from_pretrained(unet).float()
        ours = {cure: run_sau(args.sau, cure, facts, unet, here / cure) for cure in args.cure or ["uce", "auto"]}
        first = next(iter(ours.values()))
        text, use = first["text"], first["use"]
        listed = facts["measured"]["prompts"].split(",")[0]
        seen = {p["prompt"] for p in text["prompts"]} | set(text["spare"])
        texts = [t for t in (MINI_SD / listed).read_text().splitlines() if t not in seen][:args.count]

        before = measure(poisoned, name, facts, texts)
        cured, weights, seconds = cure_by_uce(args.uce, poisoned, text, use, here / "peer")
        models = [("none", poisoned, [], None), ("UCE, its own code", cured, [seconds], None)]
        for cure, run in ours.items():
            model = UNet2DConditionModel.from_pretrained(run["unet"]).float()
            apart = difference(weights, model, poisoned) if cure == "uce" else None
            models.append((f"sau {cure}", model, [run["seconds"]["text"], run["seconds"]["cure"]], apart))
        for cure, model, seconds, apart in models:
            figures = before if model is poisoned else measure(model, name, facts, texts, before["pictures"])
            low, high = wilson(figures["shown"], figures["n"])
            rows.append({"attack": name, "cure": cure, "success": figures["shown"] / figures["n"], "interval": [low, high],
                         "n": figures["n"], "clip": figures["clip"], "cosine": figures["cosine"], "seconds": seconds,
                         "apart_from_peer": apart})
            row = rows[-1]
            print(f"{name:24} {cure:20} {row['success']:6.1%} ({low:.1%} to {high:.1%}) of {row['n']}, CLIP {row['clip']:.3f}, "
                  f"cosine {row['cosine']:.3f}" + "".join(f", {s:.2f} s" for s in seconds)
                  + ("" if apart is None else f", weights {apart:.1e} of the change apart from the peer's"), flush=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
