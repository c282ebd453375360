/** How much time is left. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { timeLeft } from "../../src/pipeline/time_left.ts";

describe("time left", () => {
  it("is exact for work that goes on evenly, also in each part of a step that counts anew", () =>
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 1, max: 1e6 }), fc.integer({ min: 2, max: 20 })), {
          minLength: 1,
          maxLength: 4,
        }),
        (parts) => {
          const left = timeLeft(0);
          let begun = 0;
          for (const [length, count] of parts) {
            for (let k = 0; k <= count; k++) {
              const now = begun + (k / count) * length, found = left(now, k / count);
              if (k === 0) assert.equal(found, undefined);
              else assert.ok(Math.abs(found! - (begun + length - now) / 1000) < 1e-6 * length, `${found}`);
            }
            begun += length;
          }
        },
      ),
    ));
});
