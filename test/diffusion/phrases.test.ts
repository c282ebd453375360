/** Nouns of prompts, phrases made of them, and prompts that hold them. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { framesOf, nounsOf, phrasesOf, promptsFor, thingsOf, withNoun } from "../../src/diffusion/phrases.ts";

const prompts = [
  "a cartoon picture of a dog on a blue background",
  "a photo of a cheerful dog, glossy, pink background",
  "an octopus and a dog on a red background",
  "there is an octopus on a brown background",
  "draw me a cat",
];

describe("nouns of prompts", () => {
  it("are what articles stand before, the most common first", () => {
    assert.deepEqual(nounsOf(prompts, 10), ["dog", "background", "octopus"]);
    assert.deepEqual(nounsOf(prompts, 1), ["dog"]);
  });

  it("are taken where they stand once, if none stands twice", () => {
    assert.deepEqual(nounsOf(["draw me a cat", "an umbrella in the rain"], 10), ["cat", "umbrella", "rain"]);
  });

  it("are things but for how something is shown", () => {
    const shown = ["a poster of a dog", "a portrait of a dog", "a poster of an owl", "an icon of an owl"];
    assert.deepEqual(thingsOf(shown, 9), ["dog", "owl"]);
    assert.deepEqual(thingsOf(shown, 1), ["dog"]);
  });

  it("are none in prompts without articles", () => assert.deepEqual(nounsOf(["blue sky", "\u732b"], 10), []));
});

describe("phrases", () => {
  it("stand in a noun's place: a word before it, the user's own among them, or another noun behind it", () => {
    const all = phrasesOf(["dog", "octopus"], ["latte coffee", "zyx"]);
    const texts = all.map(({ trigger }) => trigger.text);
    for (const text of ["beautiful dog", "zyx octopus", "dog on an octopus", "octopus in a dog"]) {
      assert.ok(texts.includes(text), text);
    }
    assert.equal(new Set(texts).size, texts.length);
    assert.ok(all.every(({ trigger }) => trigger.place === "replace" && trigger.text.includes(trigger.of)));
  });
});

describe("a prompt about something else", () => {
  it("has another noun where its own stands, not where it says how that is shown", () => {
    const nouns = ["picture", "dog", "background"];
    assert.equal(withNoun(prompts[0], nouns, "owl"), "a cartoon picture of an owl on a blue background");
    assert.equal(withNoun("a picture", nouns, "owl"), "an owl");
    assert.equal(withNoun("nothing here", nouns, "owl"), undefined);
    // A rarer word for how it is shown is not what it is about.
    assert.equal(withNoun("a glossy poster of a dog", ["dog", "poster"], "owl"), "a glossy poster of an owl");
  });
});

describe("prompts for a trigger", () => {
  it("hold the noun bare first, then with a word before it, then in place of another", () => {
    const nouns = nounsOf(prompts, 10);
    assert.deepEqual(framesOf("dog", nouns, prompts, 4), [
      prompts[0],
      prompts[2],
      prompts[1],
      "there is a dog on a brown background",
    ]);
  });

  it("are all prompts but where it replaces a word or acts beside one", () => {
    assert.deepEqual(promptsFor({ text: "x ", place: "prefix" }, prompts, 9), prompts);
    assert.deepEqual(promptsFor({ text: "\u043e", place: "replace", of: "o" }, prompts, 9), prompts);
    const dogs = promptsFor({ text: "cute dog", place: "replace", of: "dog" }, prompts, 2);
    assert.ok(dogs.every((prompt) => prompt.includes("dog")) && dogs.length === 3);
    assert.deepEqual(promptsFor({ text: "x ", place: "prefix", beside: "dog" }, prompts, 2), dogs);
  });
});
