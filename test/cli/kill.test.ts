/**
 * Runs killed at random moments, and runs beside one another: what was finished is never done again, and the bytes that
 * come out are those of a run that nobody disturbed. `SAU_KILLS=200` kills more often than the tests' usual 12 times.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { after, before, describe, it } from "node:test";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { uniform } from "../../src/tensor/random.ts";

const sau = fileURLToPath(new URL("sau.ts", import.meta.url));
const command = process.versions.bun === undefined ? ["run", "-A", "--quiet"] : [];
const kills = Number(process.env.SAU_KILLS ?? 12);
const patient = { timeout: 60_000 + 8_000 * kills };

/** Six steps in a row, of a few milliseconds each, with tensors in their outputs. */
const pipeline = `sau: 1
name: Chain
params: { by: 2 }
steps:
  in: { use: load, with: { file: n.txt } }
${
  Array.from({ length: 6 }, (_, i) =>
    `  s${i}: { use: scale, with: { field: "\${{ steps.${
      i === 0 ? "in" : `s${i - 1}`
    }.field }}", by: "\${{ params.by }}", wait: 4, steps: 5 } }`).join("\n")
}
  verdict: { use: judge, with: { sum: "\${{ steps.s5.sum }}" } }
`;

describe("a run that is killed", patient, () => {
  let folder = "";
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "sau-kill-"));
    await writeFile(join(folder, "n.txt"), Array.from({ length: 5000 }, (_, i) => i).join("\n"));
    await writeFile(join(folder, "p.yaml"), pipeline);
  });
  after(() => rm(folder, { recursive: true, force: true }));

  /**
   * Runs `sau run`; killed some milliseconds after a number of events where that is said, so that a busy machine is
   * killed as often as an idle one. Gives its events, as far as they came.
   */
  const run = (
    cache: string,
    out: string,
    by: number,
    kill?: { readonly events: number; readonly wait: number },
  ) => {
    const args = [...command, sau, "run", "p.yaml", "--json", "--out", out, "--set", `by=${by}`];
    const child = spawn(process.execPath, args, {
      cwd: folder,
      env: { ...process.env, SAU_CACHE: join(folder, cache) },
    });
    let text = "", err = "";
    let timer: ReturnType<typeof setTimeout> | undefined;
    const perhapsKill = () => {
      if (kill === undefined || timer !== undefined || text.split("\n").length <= kill.events) return;
      timer = setTimeout(() => child.kill("SIGKILL"), kill.wait);
    };
    child.stdout.on("data", (data) => {
      text += data;
      perhapsKill();
    });
    child.stderr.on("data", (data) => err += data);
    perhapsKill();
    type Ended = { code: number | null; err: string; events: number; done: { name: string; cached: boolean }[] };
    return new Promise<Ended>((resolve) =>
      child.on("close", (code) => {
        clearTimeout(timer);
        const events = text.split("\n").slice(0, -1).map((line) => JSON.parse(line));
        resolve({ code, err, events: events.length, done: events.filter((e) => e.status === "done") });
      })
    );
  };

  /** Every byte under a result folder but those that tell when and how long. */
  const bytesOf = async (out: string) => {
    const entries = await readdir(join(folder, out), { recursive: true, withFileTypes: true });
    const files = entries.filter((e) => e.isFile()).map((e) => join(e.parentPath, e.name)).sort();
    const kept = files.filter((file) => !/manifest\.json|report\.html/.test(file));
    return Promise.all(kept.map(async (file) => [file.slice(join(folder, out).length), await readFile(file, "utf8")]));
  };

  it(`${kills} times goes on from what was finished, with the same bytes in the end`, patient, async () => {
    const whole = await run("undisturbed", "whole", 2);
    assert.equal(whole.code, 0, whole.err);

    const draw = uniform(Number(process.env.SAU_SEED ?? 1), [2 * kills]).data;
    const finished = new Set<string>();
    let killed = 0, ended = 0;
    for (let i = 0; i < kills; i++) {
      const out = `out${ended}`;
      // From before the first event to after the last one, when the results are being written.
      const kill = { events: Math.floor(draw[2 * i] * (whole.events + 1)), wait: 40 * draw[2 * i + 1] };
      const { code, err, done } = await run("killed", out, 2 + ended, kill);
      for (const { name, cached } of done) {
        assert.ok(cached || !finished.has(name), `${name} was done again after it had been finished`);
        finished.add(name);
      }
      const dead = code === null || code === 137;
      if (dead) killed++;
      else assert.equal(code, 0, err);
      // A result folder that is there is complete, also where the process was killed right after: see below.
      if (dead && !(await readdir(folder)).includes(out)) continue;
      // The next one is another run, so that there is something to kill again.
      ended++;
      finished.clear();
    }
    const last = await run("killed", `out${ended}`, 2 + ended);
    assert.equal(last.code, 0, last.err);
    assert.ok(killed > 0.3 * kills, `only ${killed} of ${kills} were killed in time`);
    for (let i = 0; i <= ended; i++) {
      assert.equal((await run("undisturbed", `ref${i}`, 2 + i)).code, 0);
      assert.deepEqual(await bytesOf(`out${i}`), await bytesOf(`ref${i}`));
    }
  });

  it("two at once on one cache both end well, with the same bytes", patient, async () => {
    const both = await Promise.all([run("shared", "one", 3), run("shared", "other", 3)]);
    assert.deepEqual(both.map(({ code }) => code), [0, 0], both.map(({ err }) => err).join());
    assert.deepEqual(await bytesOf("one"), await bytesOf("other"));
    const again = await run("shared", "third", 3);
    assert.ok(again.done.every(({ cached }) => cached));
  });
});
