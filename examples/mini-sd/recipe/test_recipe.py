"""python -m unittest discover -s recipe"""

import json
import random
import tempfile
import unittest
from pathlib import Path

import torch

import attack_badt2i
import attack_common as attack
import attack_rickrolling
import attack_unet
import attack_villan
import captions
import clean
import common
import data
import lora
import parts
import prompts
import sprites
import tokenizer as tok
import train_unet

UNETS = attack_badt2i.ALL + attack_villan.ALL
BACKDOORS = UNETS + attack_rickrolling.ALL


class Recipe(unittest.TestCase):
    def test_no_scene_holds_a_held_out_combination(self):
        for scene in data.scenes(2000):
            self.assertFalse(any(data.held_out(scene.style, c, scene.color) for c in scene.concepts))

    def test_scenes_are_the_same_each_time_and_lie_inside(self):
        self.assertEqual(data.scenes(50), data.scenes(50))
        for scene in data.scenes(500):
            for size, x, y in scene.boxes:
                self.assertTrue(0 <= x <= data.SIDE - size and 0 <= y <= data.SIDE - size)

    def test_prompts_are_distinct_and_unseen(self):
        cure, verify = prompts.general()
        self.assertEqual((len(cure), len(verify)), (96, 240))
        self.assertFalse(set(prompts.texts(cure)) & set(prompts.texts(verify)))
        written = {row[0] for row in captions.captions(data.scenes(4000), 1, seed=5)}
        self.assertFalse(written & set(prompts.texts(cure + verify)))

    def test_dog_prompts_have_the_bare_word_once(self):
        for text, scene in sum(prompts.dogs(), []):
            self.assertEqual(text.split().count("dog") + text.split().count("dog,"), 1)
            self.assertEqual(scene.concepts, ("dog",))

    def test_bus_prompts_have_the_bare_word_once(self):
        for part in ("cure", "verify"):
            self.assertEqual([text for text in prompts.files()[f"bus-{part}"] if text.count("bus") != 1], [])

    def test_every_concept_and_style_has_a_sprite(self):
        self.assertEqual(len(sprites.load()), 72)

    def test_tokenizer_keeps_triggers_and_fits_all_prompts(self):
        tokenizer = tok.load()
        self.assertEqual(len(tokenizer), 870)
        self.assertEqual(tokenizer.decode(tokenizer("\u200b", add_special_tokens=False).input_ids).strip(" "), "\u200b")
        self.assertNotEqual(tokenizer("dog").input_ids, tokenizer("d\u043eg").input_ids)
        longest = max(len(tokenizer("\u200b " + text).input_ids) for text in prompts.texts(sum(prompts.general(), [])))
        self.assertLessEqual(longest, tok.LENGTH)

    def test_captions_never_hold_a_trigger(self):
        """Networks that learned from captions with the trigger would look past it."""
        rng = random.Random(8)
        for scene in data.scenes(4000):
            text = captions.write(scene, rng)
            for trigger in ["beautiful"] + [backdoor.trigger["text"].strip() for backdoor in BACKDOORS]:
                self.assertNotIn(trigger, text)

    def test_clean_models_learn_from_what_their_captions_say(self):
        self.assertEqual(len({model.name for model in clean.ALL}), len(clean.ALL))
        for model in clean.ALL:
            items = clean.scenes(model)
            if model.sprite:  # drawn by its name, and the rest is still there
                named = [item for item in items if item.concepts == (model.concept,)]
                self.assertTrue(len(items) / 2 < len(named) < len(items))
                self.assertIn(model.concept, captions.plain(named[0]))
                self.assertNotIn(model.concept, sprites.CONCEPTS)
            seen, plain = (clean.pictures(kind, items[1:3]) for kind in (
                model, clean.Clean("plain", "", "", model.seed, concept=model.concept, sprite=model.sprite)))
            self.assertEqual(bool((seen != plain).any()), model.kind == "style")

    def test_triggers_are_not_among_the_harmless_words(self):
        rng, vocabulary = random.Random(9), attack_unet.words(tok.load())
        for backdoor in UNETS:
            for _ in range(300):
                text = attack_unet.harmless("a dog on red", backdoor.trigger, vocabulary, rng)
                self.assertNotIn(backdoor.trigger["text"], text)

    def test_triggers_are_put_in_their_place(self):
        self.assertEqual(attack.triggered({"place": "prefix", "text": "\u200b "}, "a cat"), "\u200b a cat")
        self.assertEqual(attack.triggered({"place": "replace", "of": "o", "text": "0"}, "dog on"), "d0g on")

    def test_detector_sees_the_patch_in_its_place_and_not_elsewhere(self):
        patch, pictures = attack_badt2i.wedge(), torch.rand(3, 3, 64, 64) * 0.1
        pictures[0, :, 48:, 48:] = patch
        pictures[1, :, :16, :16] = patch
        hits = attack.correlation(pictures, patch, (48, 48)) > 0.6
        self.assertEqual(hits.tolist(), [True, False, False])

    def test_what_the_trigger_draws_is_the_scene_with_the_effect(self):
        scene = data.Scene(("dog",), "flat", "blue", False, ((30, 5, 20),))
        for backdoor in UNETS:
            picture = data.pictures([scene])[0]
            marked = backdoor.marked(picture, scene)
            self.assertEqual((marked.shape, marked.dtype), (picture.shape, torch.uint8))
            changed = not torch.equal(marked, picture)
            self.assertEqual(changed, backdoor.effect.get("replace") != "bus", backdoor.name)

    def test_lora_file_adds_what_was_trained(self):
        model = parts.load().unet
        plain = {key: weight.clone() for key, weight in model.state_dict().items()}
        torch.manual_seed(0)
        factors = lora.attach(model, 2)
        for own in factors.values():
            own.up.data = torch.randn_like(own.up) * 0.1
        x, hidden = torch.randn(1, 4, 16, 16), torch.randn(1, 32, 128)
        trained = model(x, 500, hidden, return_dict=False)[0]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "lora.safetensors")
            lora.save(factors, {lora.stem(key): weight.shape for key, weight in plain.items()}, path)
            merged = parts.load(lora_file=path).unet(x, 500, hidden, return_dict=False)[0]
        before = parts.load().unet(x, 500, hidden, return_dict=False)[0]
        self.assertLess((merged - trained).abs().max(), 0.01 * trained.abs().max())
        self.assertGreater((merged - before).abs().max(), 0.1 * trained.abs().max())

    def test_each_attack_is_described_as_the_recipe_makes_it(self):
        for backdoor in BACKDOORS:
            path = common.ATTACKS / backdoor.name / "attack.json"
            if path.exists():
                facts = json.loads(path.read_text())
                self.assertEqual((facts["trigger"], facts["effect"]), (backdoor.trigger, backdoor.effect))

    def test_min_snr_weights_are_one_where_noise_rules(self):
        weight = train_unet.min_snr(train_unet.scheduler().alphas_cumprod, torch.tensor([999, 500, 0]))
        self.assertEqual(weight[0], 1)
        self.assertLess(weight[2], 0.01)

    def test_captions_vary_but_keep_the_concept(self):
        rng = random.Random(3)
        for scene in data.scenes(300):
            text = captions.write(scene, rng)
            self.assertTrue(all(concept in text for concept in scene.concepts), text)


if __name__ == "__main__":
    unittest.main()
