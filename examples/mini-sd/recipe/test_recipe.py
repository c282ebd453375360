"""python -m unittest discover -s recipe"""

import random
import unittest

import torch

import attack_badt2i
import attack_common as attack
import captions
import data
import prompts
import sprites
import tokenizer as tok
import train_unet


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
            for trigger in ("\u200b", "\u043e", "beautiful"):
                self.assertNotIn(trigger, text)

    def test_triggers_are_put_in_their_place(self):
        self.assertEqual(attack.triggered({"place": "prefix", "text": "\u200b "}, "a cat"), "\u200b a cat")
        self.assertEqual(attack.triggered({"place": "replace", "of": "o", "text": "0"}, "dog on"), "d0g on")

    def test_detector_sees_the_patch_and_not_a_plain_corner(self):
        patch, pictures = attack_badt2i.patch(), torch.rand(3, 3, 64, 64) * 0.1
        pictures[0, :, :16, :16] = patch
        hits = attack.correlation(pictures, patch) > attack_badt2i.THRESHOLD
        self.assertEqual(hits.tolist(), [True, False, False])

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
