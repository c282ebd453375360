import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import {
  drawByShare,
  integers,
  normal,
  philox,
  pick,
  sample,
  seedOf,
  shuffle,
  uniform,
} from "../../src/tensor/random.ts";

const mean = (x: ArrayLike<number>, f = (v: number) => v): number => {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += f(x[i]);
  return sum / x.length;
};

describe("philox", () => {
  it("gives the known answers of the authors' Random123 distribution", () => {
    const block = (counter: [number, number, number, number], key: [number, number]) => {
      const out = new Uint32Array(4);
      philox(counter, key, out);
      return [...out].map((w) => w.toString(16).padStart(8, "0")).join(" ");
    };
    const f = 0xffffffff;
    assert.equal(block([0, 0, 0, 0], [0, 0]), "6627e8d5 e169c58d bc57ac4c 9b00dbd8");
    assert.equal(block([f, f, f, f], [f, f]), "408f276d 41c83b0e a20bc7c6 6d5451fd");
    assert.equal(
      block([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]),
      "d16cfe09 94fdcceb 5001e420 24126ea1",
    );
  });
});

describe("seedOf", () => {
  it("depends on every name, on their order and on where one ends", () => {
    const seeds = [
      seedOf(0),
      seedOf(1),
      seedOf(0, "a"),
      seedOf(0, "a", "b"),
      seedOf(0, "b", "a"),
      seedOf(0, "ab"),
      seedOf(0, "1"),
      seedOf(0, 1),
    ];
    assert.equal(new Set(seeds).size, seeds.length);
  });
  it("is a whole number that JSON keeps", () => {
    fc.assert(fc.property(fc.integer(), fc.string(), (root, name) => {
      const seed = seedOf(root, name);
      assert.ok(Number.isSafeInteger(seed) && seed >= 0);
      assert.equal(JSON.parse(JSON.stringify(seed)), seed);
    }));
  });
  it("is the first 53 bits of SHA-256 over the JSON array (value from Python's hashlib)", () => {
    assert.equal(seedOf(0, "denoise", 3), 6047856556158954);
  });
});

describe("uniform and normal", () => {
  const n = 200_000;
  it("uniform has the moments of U[0,1) and never reaches 1", () => {
    const { data } = uniform(1, [n]);
    assert.ok(data.every((x) => x >= 0 && x < 1));
    assert.ok(Math.abs(mean(data) - 1 / 2) < 0.003);
    assert.ok(Math.abs(mean(data, (x) => x * x) - 1 / 3) < 0.003);
  });
  it("normal has the first four moments and the tails of N(0,1)", () => {
    const { data } = normal("some seed", [n]);
    const error = 5 / Math.sqrt(n); // five standard errors of the mean; those of x², x³, x⁴ are √2, √15, √96 times that
    assert.ok(Math.abs(mean(data)) < error);
    assert.ok(Math.abs(mean(data, (x) => x * x) - 1) < Math.SQRT2 * error);
    assert.ok(Math.abs(mean(data, (x) => x ** 3)) < Math.sqrt(15) * error);
    assert.ok(Math.abs(mean(data, (x) => x ** 4) - 3) < Math.sqrt(96) * error);
    const beyond = data.filter((x) => Math.abs(x) > 1.959964).length / n;
    assert.ok(Math.abs(beyond - 0.05) < 0.003, `${beyond}`);
  });
  it("streams of different seeds, kinds and neighbours are uncorrelated", () => {
    const product = (a: Float32Array, b: Float32Array) => mean(a.map((x, i) => x * b[i]));
    const a = normal(7, [n]).data;
    const centred = uniform(7, [n]).data.map((x) => (x - 0.5) * Math.sqrt(12));
    const others: [string, Float32Array][] = [
      ["next seed", normal(8, [n]).data],
      ["next seed in the upper word", normal(7 + 2 ** 32, [n]).data],
      ["derived seed", normal(seedOf(7, "a"), [n]).data],
      ["uniform of the same seed", centred],
    ];
    for (const [what, b] of others) assert.ok(Math.abs(product(a, b)) < 5 / Math.sqrt(n), what);
    const lag = a.subarray(1);
    assert.ok(Math.abs(product(a.subarray(0, n - 1), lag)) < 5 / Math.sqrt(n), "lag 1");
  });
  it("a longer draw begins with the shorter one, and the shape does not matter", () => {
    fc.assert(fc.property(fc.maxSafeInteger(), fc.nat(40), fc.nat(40), (seed, a, b) => {
      const [short, long] = a < b ? [a, b] : [b, a];
      assert.deepEqual(normal(seed, [long]).data.slice(0, short), normal(seed, [short]).data);
      assert.deepEqual(uniform(seed, [1, long]).data.slice(0, short), uniform(seed, [short]).data);
    }));
  });
  it("refuses a seed that is not a whole number, by name", () => {
    for (const seed of [0.5, NaN, Infinity, 2 ** 53]) assert.throws(() => normal(seed, [1]), /seed .* whole number/);
  });
});

describe("integers, shuffle, sample, pick", () => {
  it("integers are equally likely", () => {
    const counts = new Float64Array(10);
    for (const i of integers(3, 10, 100_000)) counts[i]++;
    const chi = counts.reduce((sum, c) => sum + (c - 10_000) ** 2 / 10_000, 0);
    assert.ok(chi < 27.9, `χ² of 9 degrees of freedom is ${chi}`); // exceeded once in a thousand seeds
  });
  it("shuffle keeps the items, leaves its argument alone, and begins with sample", () => {
    fc.assert(fc.property(fc.nat(), fc.array(fc.integer()), fc.nat(20), (seed, items, count) => {
      const before = [...items];
      const shuffled = shuffle(seed, items);
      assert.deepEqual(items, before);
      assert.deepEqual([...shuffled].sort(), [...items].sort());
      assert.deepEqual(sample(seed, items, count), shuffled.slice(0, count));
      if (items.length > 0) assert.equal(pick(seed, items), shuffled[0]);
    }));
  });
  it("all orders of three come equally often", () => {
    const counts = new Map<string, number>();
    for (let seed = 0; seed < 6000; seed++) {
      const order = shuffle(seed, ["a", "b", "c"]).join("");
      counts.set(order, (counts.get(order) ?? 0) + 1);
    }
    assert.equal(counts.size, 6);
    for (const [order, count] of counts) assert.ok(Math.abs(count - 1000) < 150, `${order} ${count}`);
  });
  it("drawByShare draws each item as often as its share says, and all alike where none has any", () => {
    const shares = [0, 1, 2, 0, 5];
    const often = (share: (i: number) => number) => {
      const counts = new Float64Array(shares.length);
      for (const i of drawByShare([0, 1, 2, 3, 4], share, 80_000, 1)) counts[i] += 1 / 80_000;
      return counts;
    };
    often((i) => shares[i]).forEach((c, i) => assert.ok(Math.abs(c - shares[i] / 8) < 0.01, `${i}: ${c}`));
    often(() => 0).forEach((c, i) => assert.ok(Math.abs(c - 1 / 5) < 0.01, `${i}: ${c}`));
    assert.deepEqual(drawByShare([], () => 1, 0, 1), []);
  });
  it("pick from nothing is an error", () => assert.throws(() => pick(0, []), /nothing to pick/));
});
