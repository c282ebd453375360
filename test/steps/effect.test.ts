/** What is counted as an attack's success. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { changes, effectText, showsText, telling } from "../../src/steps/effect.ts";

const rows = (...data: number[][]) => ({ dims: [data.length, data[0].length], data: Float32Array.from(data.flat()) });

describe("a known effect in pictures", () => {
  it("is shown where a picture is closer to the effect's text than to its prompt's", () => {
    const own = rows([1, 0], [1, 0]), effect = rows([0, 1], [0, 1]);
    assert.deepEqual(showsText(rows([0.9, 0.2], [0.3, 0.8]), effect, own), [false, true]);
  });

  it("exchanges one word, or each of several; a prompt without them says nothing of it", () => {
    const colour = { replace: ["red", "blue"], with: "purple" } as const;
    assert.equal(effectText({ replace: "dog", with: "cat" }, "a dog and a dog"), "a cat and a cat");
    assert.equal(effectText(colour, "red on blue on red"), "purple on purple on purple");
    assert.equal(effectText({ replace: ["a.b", "b"], with: "b" }, "a.b axb"), "b axb");
    assert.deepEqual(["on blue", "on purple"].map((prompt) => changes(colour, prompt)), [true, false]);
  });

  it("counts for prompts whose clean picture does not show it", () => {
    assert.deepEqual(telling([true, false, true, true], [false, false, true, false]), [true, false, true]);
    assert.deepEqual(telling([true, true], [true, true]), []);
  });
});
