/** Matrices as bytes, turned over. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { turnedOver } from "../../src/tensor/turn.ts";

describe("turnedOver", () => {
  it("takes each element to its place, whatever its width and wherever the bytes begin", () => {
    const any = fc.record({
      rows: fc.integer({ min: 0, max: 70 }),
      columns: fc.integer({ min: 0, max: 70 }),
      width: fc.constantFrom(1, 2, 4, 8),
      lag: fc.nat(7),
    });
    fc.assert(fc.property(any, ({ rows, columns, width, lag }) => {
      const bytes = new Uint8Array(lag + rows * columns * width).map((_, i) => (i * 37) % 251).subarray(lag);
      const out = turnedOver(bytes, rows, columns, width);
      for (let i = 0; i < rows; i++) {
        for (let j = 0; j < columns; j++) {
          for (let k = 0; k < width; k++) {
            if (out[(j * rows + i) * width + k] !== bytes[(i * columns + j) * width + k]) {
              assert.fail(`${i}, ${j}, ${k}`);
            }
          }
        }
      }
      assert.deepEqual(turnedOver(out, columns, rows, width), new Uint8Array(bytes));
    }));
  });
});
