import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { healthyTwins, meanTriggered, textTargets } from "../../src/unlearn/text_targets.ts";

/** One prompt, two twins, four tokens, width 1: the trigger makes two tokens of the clean text's second one. */
const embeddings = {
  dims: [1, 4, 4, 1],
  data: Float32Array.of(0, 1, 2, 3, 0, 90, 90, 90, 0, 1.5, 1.5, 2.5, 0, 80, 80, 80),
};
const alignment = [[0, -1, 1, 2]];

describe("what a triggered text should be read as", () => {
  const targets = (
    use: boolean[],
    target: "clean" | "twins" | "both",
  ) => [...textTargets(embeddings, alignment, [use], target).data];

  it("clean: each token as its counterpart, one without a counterpart as the token before it", () => {
    assert.deepEqual(targets([true, true], "clean"), [0, 0, 1, 2]);
  });

  it("twins: as the mean of those that are used, and as the clean text where none is", () => {
    assert.deepEqual(targets([true, false], "twins"), [0, 1.5, 1.5, 2.5]);
    assert.deepEqual(targets([true, true], "twins"), [0, 40.75, 40.75, 41.25]);
    assert.deepEqual(targets([false, false], "twins"), [0, 0, 1, 2]);
  });

  it("both: halfway", () => assert.deepEqual(targets([true, false], "both"), [0, 0.75, 1.25, 2.25]));

  it("a twin that is drawn towards what triggered texts turn into is not healthy", () => {
    const trap = meanTriggered(embeddings);
    assert.deepEqual([...trap.data], [0, 90, 90, 90]);
    assert.deepEqual(healthyTwins(embeddings, alignment, trap), [[true, false]]);
  });
});
