/** The most memory that the process held: grows with what is held meanwhile, and overlapping spans each see their own. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { describe, it } from "node:test";
import { measurePeak } from "../../src/runtime/peak_memory.ts";

const MB = 1e6;
const noMark = existsSync("/proc/self/clear_refs") ? false : "the system keeps no mark of a process's memory";

/** Holds so many bytes for a moment. */
const hold = (bytes: number) => new Uint8Array(bytes).fill(1)[bytes - 1];

describe("peak memory", { skip: noMark }, () => {
  it("is at least what was held meanwhile, above what was held before", () => {
    const before = measurePeak()();
    const end = measurePeak();
    assert.equal(hold(300 * MB), 1);
    const most = end();
    assert.ok(before !== undefined && most !== undefined);
    // What an earlier test left for the collector may have been reused.
    assert.ok(most > 300 * MB && most >= before, `${most} against ${before}`);
  });

  it("a span that another begins within keeps what it had seen", () => {
    const outer = measurePeak();
    hold(200 * MB);
    const inner = measurePeak();
    const [within, all] = [inner(), outer()];
    assert.ok(within !== undefined && all !== undefined && all >= within && all > 200 * MB);
  });
});
