/** The laws find planted bugs, and shrink them to something that a person can read. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { blend } from "../../src/mask/blend.ts";
import { zipCells } from "../../src/mask/field.ts";
import { resize } from "../../src/mask/resize.ts";
import { aboveThreshold } from "../../src/mask/threshold.ts";
import { size, type Tensor } from "../../src/tensor/tensor.ts";
import {
  checkBlendLaws,
  checkCombineLaws,
  checkEdgeLaws,
  checkMaskLaws,
  checkResizeLaws,
  checkUnionLaws,
  fieldArbitrary,
  fieldsArbitrary,
  LawBroken,
  maskArbitrary,
  shiftedObjectArbitrary,
} from "../../src/testing/mod.ts";

const broken = (run: () => void): LawBroken => {
  try {
    run();
  } catch (error) {
    if (error instanceof LawBroken) return error;
    throw error;
  }
  throw new Error("no law was found broken");
};

const isTensor = (x: unknown): x is Tensor => typeof x === "object" && x !== null && "dims" in x && "data" in x;

/** The tensors of a counterexample, wherever they lie in it. */
const tensors = (x: unknown): Tensor[] => isTensor(x) ? [x] : Array.isArray(x) ? x.flatMap(tensors) : [];

/** Of up to 144 cells a handful is left: the one at fault, and sometimes a neighbour that cannot be dropped. */
const readable = (found: LawBroken) => {
  for (const { dims } of tensors(found.counterexample)) assert.ok(size(dims.slice(-2)) <= 4, `[${dims.join(", ")}]`);
};

describe("planted bugs are found and shrunk", () => {
  it("the precursor's combination, m_p + ½ m_s, which is not convex: 1.5 where both masks are 1", () => {
    const found = broken(() => checkCombineLaws((p, s) => zipCells(p, s, (a, b) => a + 0.5 * b)));
    assert.match(found.law, /between the primary mask and 1/);
    readable(found);
    const [p, s] = tensors(found.counterexample);
    const over = [...p.data.keys()].filter((i) => p.data[i] + 0.5 * s.data[i] > 1);
    assert.equal(over.length, 1, "one cell at fault");
    assert.ok(p.data.every((v, i) => over.includes(i) || (v === 0 && s.data[i] === 0)), "the rest is 0");
    assert.match(found.message, /Counterexample/);
  });
  it("its effect on latents: a mask above 1 leaves the interval between poisoned and clean", () => {
    const found = broken(() =>
      checkBlendLaws((p, c, m) => blend(p, c, zipCells(m, m, (a) => 1.4963 * a)), {
        except: ["a mask of 1 gives the clean latents"],
      })
    );
    assert.match(found.law, /between the two/);
    readable(found);
  });
  it("a union by addition", () => {
    assert.match(broken(() => checkUnionLaws((a, b) => zipCells(a, b, (x, y) => x + y))).law, /no more than 1/);
  });
  it("a union that is not associative", () => {
    const found = broken(() =>
      checkUnionLaws((a, b) => zipCells(a, b, (x, y) => Math.sqrt(x * x + y * y - x * x * y * y) ** 1.2))
    );
    assert.match(found.law, /no less than either|associative/);
  });
  it("a threshold taken over the whole batch", () => {
    const found = broken(() =>
      checkMaskLaws((field) => {
        const [h, w] = field.dims.slice(-2);
        const first = field.data.subarray(0, h * w);
        const mean = first.reduce((s, v) => s + v, 0) / (h * w);
        return { dims: field.dims, data: field.data.map((v) => v > mean ? 1 : 0) };
      })
    );
    assert.match(found.law, /reordering the batch|flipping/);
  });
  it("a mask that is moved by one cell, whatever the field: found by the flips", () => {
    const found = broken(() =>
      checkMaskLaws((field, value) => {
        const m = aboveThreshold(field, { value });
        return { dims: m.dims, data: m.data.map((_, i) => m.data[(i + 1) % m.data.length]) };
      })
    );
    assert.match(found.law, /flipping/);
  });
  it("a mask that fades towards the right: found by shifts, and by nothing else when it is symmetric", () => {
    const found = broken(() =>
      checkMaskLaws((field, value) => {
        const [h, w] = field.dims.slice(-2);
        const m = aboveThreshold(field, { value });
        const fade = (i: number) => {
          const x = i % w, y = Math.floor(i / w) % h;
          return Math.min(x + 1, w - x, y + 1, h - y) / (h + w);
        };
        return { dims: m.dims, data: m.data.map((v, i) => v * fade(i)) };
      })
    );
    assert.match(found.law, /moving/);
  });
  it("a resize by taking the nearest cell does not keep the mean", () => {
    const nearest = (field: Tensor, [h, w]: readonly [number, number]): Tensor => {
      const [fromH, fromW] = field.dims.slice(-2);
      const maps = size(field.dims.slice(0, -2));
      const data = Float32Array.from({ length: maps * h * w }, (_, i) => {
        const y = Math.floor((Math.floor(i / w) % h) * fromH / h), x = Math.floor((i % w) * fromW / w);
        return field.data[(Math.floor(i / (h * w)) * fromH + y) * fromW + x];
      });
      return { dims: [...field.dims.slice(0, -2), h, w], data };
    };
    assert.match(broken(() => checkResizeLaws(nearest)).law, /mean/);
    checkResizeLaws((field, to) => resize(field, to));
  });
  it("an edge that overshoots, and one that folds back", () => {
    const edge = (f: (v: number) => number) => (field: Tensor) => ({ dims: field.dims, data: field.data.map(f) });
    assert.match(broken(() => checkEdgeLaws(edge((v) => v))).law, /from 0 to 1/);
    assert.match(broken(() => checkEdgeLaws(edge((v) => Math.exp(-v * v)))).law, /order/);
  });
  it("an exception for a law that does not exist is a mistake, and the names are given", () => {
    assert.throws(() => checkEdgeLaws((f) => f, { except: ["ordre"] }), /no law "ordre"; the laws are: .*order/);
  });
  it("the same seed gives the same counterexample", () => {
    const once = () => broken(() => checkUnionLaws((a, b) => zipCells(a, b, (x, y) => x + y), { seed: 5 })).message;
    assert.equal(once(), once());
  });
});

describe("arbitraries", () => {
  it("fields have the dims and the range asked for", () => {
    fc.assert(fc.property(fieldArbitrary({ h: 2, w: 3, batch: [4, 1], min: -1, max: 0.5 }), ({ dims, data }) => {
      assert.deepEqual(dims, [4, 1, 2, 3]);
      assert.equal(data.length, 24);
      assert.ok(data.every((v) => v >= -1 && v <= 0.5));
    }));
  });
  it("masks reach both 0 and 1", () => {
    const seen = new Set(fc.sample(maskArbitrary(), 100).flatMap(({ data }) => [...data]));
    assert.ok(seen.has(0) && seen.has(1) && [...seen].every((v) => v >= 0 && v <= 1));
  });
  it("several fields share their dims", () => {
    fc.assert(fc.property(fieldsArbitrary(3), (fields) => {
      assert.equal(fields.length, 3);
      for (const { dims, data } of fields) {
        assert.deepEqual(dims, fields[0].dims);
        assert.equal(data.length, size(dims));
      }
    }));
  });
  it("a shifted object keeps its margin", () => {
    fc.assert(fc.property(shiftedObjectArbitrary(2), ({ field, dx, dy }) => {
      const [h, w] = field.dims;
      const background = field.data[0];
      field.data.forEach((v, i) => {
        if (v === background) return;
        const x = i % w + dx, y = Math.floor(i / w) + dy;
        assert.ok(x >= 2 && x < w - 2 && y >= 2 && y < h - 2);
      });
    }));
  });
});
