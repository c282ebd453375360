/** The cache's upkeep: sizes, what goes first, what is damaged, and folders that a crash may leave. */
import assert from "node:assert/strict";
import { Effect } from "effect";
import fc from "fast-check";
import { mkdir, readdir, readFile, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { openCache } from "../../src/pipeline/cache.ts";
import { type EntryInfo, parseSize, surplus, upkeep } from "../../src/pipeline/upkeep.ts";
import { withBench, withFolder } from "./helpers.ts";
import { number } from "./steps.ts";

const key = (i: number) => i.toString(16).padStart(64, "0");
const about = { use: "load", seconds: 1 };

const put = (cache: ReturnType<typeof openCache>, i: number) =>
  Effect.runPromise(cache.put(key(i), about, { sum: number }, { sum: i }));
const keys = async (folder: string) => (await Effect.runPromise(upkeep(folder).list)).map((e) => parseInt(e.key, 16));

/** Sets when an entry was last used, in hours before now. */
const usedBefore = (folder: string, i: number, hours: number) => {
  const time = new Date(Date.now() - hours * 3_600_000);
  return utimes(join(folder, "v1", "results", key(i).slice(0, 2), key(i), "entry.json"), time, time);
};

describe("a size", () => {
  it("is read as people write it", () => {
    const sizes = ["500 MB", "20GB", "1.5g", "1048576", "2 kb", "none", "NONE"].map(parseSize);
    assert.deepEqual(sizes, [500e6, 20e9, 1.5e9, 1048576, 2000, Infinity, Infinity]);
    assert.deepEqual(["", "big", "-1", "5 XB", "1e9", "GB"].map(parseSize), Array(6).fill(undefined));
  });
});

describe("what goes to keep a limit", () => {
  const entries = fc.array(fc.record({ bytes: fc.nat(1000), kept: fc.boolean() }), { maxLength: 20 }).map((list) =>
    list.map(({ bytes, kept }, i): EntryInfo & { kept: boolean } => ({ key: key(i), bytes, used: i, kept }))
  );
  it("is the longest unused, no more than needed, and never what is to stay", () =>
    fc.assert(fc.property(entries, fc.nat(10_000), (list, limit) => {
      const keep = new Set(list.filter((e) => e.kept).map((e) => e.key));
      const gone = surplus(list, limit, keep);
      const size = (some: readonly EntryInfo[]) => some.reduce((n, e) => n + e.bytes, 0);
      const rest = size(list) - size(gone);
      const free = list.filter((e) => !keep.has(e.key));
      assert.deepEqual(gone, free.slice(0, gone.length), "the oldest first");
      assert.ok(rest <= limit || gone.length === free.length, "all that may go is gone, or it fits");
      const last = gone.at(-1);
      assert.ok(last === undefined || rest + last.bytes > limit, "the last one had to go");
    })));
});

describe("a cache with a limit", () => {
  it("lets go what was not used for longest, and never what this run used", () =>
    withFolder(async (folder) => {
      for (let i = 0; i < 4; i++) {
        await put(openCache(folder, Infinity), i);
        await usedBefore(folder, i, 10 - i);
      }
      const [{ bytes }] = await Effect.runPromise(upkeep(folder).list);
      const cache = openCache(folder, 3 * bytes + 10);
      const hit = await Effect.runPromise(cache.get(key(0), { sum: number }));
      assert.deepEqual(hit, { _tag: "hit", seconds: 1, outputs: { sum: 0 } });
      await put(cache, 4);
      assert.deepEqual((await keys(folder)).sort(), [0, 3, 4]);
      await put(cache, 5);
      await put(cache, 6);
      assert.deepEqual((await keys(folder)).sort(), [0, 4, 5, 6], "its own are more than the limit: they stay");
    }));

  it("keeps what a plan of this run counts on, though it was not read yet", () =>
    withFolder(async (folder) => {
      for (let i = 0; i < 3; i++) {
        await put(openCache(folder, Infinity), i);
        await usedBefore(folder, i, 10 - i);
      }
      const [{ bytes }] = await Effect.runPromise(upkeep(folder).list);
      const cache = openCache(folder, 3 * bytes + 10);
      assert.ok(await Effect.runPromise(cache.has(key(0))));
      await put(cache, 3);
      assert.deepEqual((await keys(folder)).sort(), [0, 2, 3]);
    }));

  it("that cannot be read is told, not taken for an empty one", () =>
    withFolder(async (folder) => {
      await mkdir(join(folder, "v1"));
      await writeFile(join(folder, "v1", "results"), "in the way");
      await assert.rejects(Effect.runPromise(upkeep(folder).list), /ENOTDIR/);
    }));

  it("prune: by size, by days, all", () =>
    withFolder(async (folder) => {
      for (let i = 0; i < 5; i++) {
        await put(openCache(folder, Infinity), i);
        await usedBefore(folder, i, 24 * (10 - i));
      }
      const kept = upkeep(folder);
      const [{ bytes }] = await Effect.runPromise(kept.list);
      const gone = await Effect.runPromise(kept.prune({ olderThan: 9.5 }));
      assert.deepEqual(gone.map((e) => [parseInt(e.key, 16), e.use, e.bytes]), [[0, "load", bytes]]);
      await Effect.runPromise(kept.prune({ limit: 2 * bytes }));
      assert.deepEqual(await keys(folder), [3, 4]);
      await Effect.runPromise(kept.prune({ all: true }));
      assert.deepEqual(await keys(folder), []);
    }));

  it("verify names what is damaged and takes it away; the rest stays", () =>
    withFolder(async (folder) => {
      const cache = openCache(folder);
      for (let i = 0; i < 3; i++) await put(cache, i);
      const file = join(folder, "v1", "results", key(1).slice(0, 2), key(1), "sum.json");
      await writeFile(file, `${await readFile(file, "utf8")} `);
      const { checked, damaged } = await Effect.runPromise(upkeep(folder).verify());
      assert.equal(checked, 3);
      assert.deepEqual(damaged.map((e) => [e.key, e.use]), [[key(1), "load"]]);
      assert.match(damaged[0].why, /the bytes of sum are not those that were written/);
      assert.deepEqual((await keys(folder)).sort(), [0, 2]);
    }));

  it("a folder that is no entry does not stand in the way of one", () =>
    withBench(async ({ run, cache }) => {
      const { result } = await run();
      assert.ok(result._tag === "Success");
      const at = join(cache.folder, "v1", "results");
      const made = result.success.steps.map((step) => step.key);
      for (const k of made) {
        await Effect.runPromise(cache.drop(k));
        await mkdir(join(at, k.slice(0, 2), k), { recursive: true });
        await writeFile(join(at, k.slice(0, 2), k, "sum.json"), "1");
      }
      assert.equal((await run()).ran.length, 3);
      assert.deepEqual((await run()).ran, []);
      assert.deepEqual(await readdir(join(cache.folder, "v1", "tmp")), []);
    }));
});
