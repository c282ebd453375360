/** The word for a shape, on fields whose shape is known because they were drawn so, under noise. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { shapeOf } from "../../src/mask/shape.ts";
import { flipX, flipY } from "../../src/testing/fields.ts";
import { normal, seedOf } from "../../src/tensor/random.ts";
import { type Tensor, tensor } from "../../src/tensor/tensor.ts";

const side = 16, count = 8;

/** Fields [8, 16, 16] of noise with a region per prompt at `level`, and their mean. */
const scene = (seed: number, level: number, inside: (prompt: number, x: number, y: number) => boolean) => {
  const noise = normal(seed, [count, side, side]);
  const data = noise.data.map((v, i) => {
    const prompt = Math.floor(i / side ** 2), x = i % side, y = Math.floor(i / side) % side;
    return 0.3 * v + (inside(prompt, x, y) ? level : 0);
  });
  const mean = Float32Array.from({ length: side ** 2 }, (_, cell) => {
    let sum = 0;
    for (let p = 0; p < count; p++) sum += data[p * side ** 2 + cell];
    return sum / count;
  });
  return { pooled: tensor(mean, [side, side]), prompts: tensor(data, [count, side, side]) };
};

const square = (left: number, top: number, width: number) => (x: number, y: number) =>
  x >= left && x < left + width && y >= top && y < top + width;

const drawn = {
  local: (seed: number) => scene(seed, 3, (_, x, y) => square(0, 0, 4)(x, y)),
  "object-bound": (seed: number) => scene(seed, 3, (p, x, y) => square((p % 3) * 4, Math.floor(p / 3) * 4, 7)(x, y)),
  global: (seed: number) => scene(seed, 2, () => true),
  none: (seed: number) => scene(seed, 0, () => false),
};

describe("shapeOf", () => {
  for (const [word, draw] of Object.entries(drawn)) {
    it(`${word}: under any noise, and wherever it is flipped to`, () => {
      fc.assert(
        fc.property(fc.nat(), (n) => {
          const { pooled, prompts } = draw(seedOf(n, word));
          for (const flip of [(f: Tensor) => f, flipX, flipY]) {
            assert.equal(shapeOf(flip(pooled), flip(prompts)).shape, word);
          }
        }),
        { numRuns: 30 },
      );
    });
  }
  it("without the prompts' own fields, tells none, small and most", () => {
    assert.equal(shapeOf(drawn.local(1).pooled).shape, "local");
    assert.equal(shapeOf(drawn.global(1).pooled).shape, "global");
    assert.equal(shapeOf(drawn.none(1).pooled).shape, "none");
  });
  it("gives the ratio, not its logarithm", () => {
    const { strength, coverage } = shapeOf(tensor(Float32Array.of(0, Math.log(8), -1, 0), [2, 2]));
    assert.ok(Math.abs(strength - 8) < 1e-5);
    assert.equal(coverage, 0.25);
  });
  it("refuses maps that do not fit", () => {
    const map = tensor(new Float32Array(4), [2, 2]);
    assert.throws(() => shapeOf(tensor(new Float32Array(8), [2, 2, 2])), /one map/);
    assert.throws(() => shapeOf(map, tensor(new Float32Array(6), [1, 2, 3])), /\[1, 2, 3\] do not fit/);
  });
});
