/** The command line as people meet it: a process of its own, in the runtime that runs these tests. */
import { after, before, describe, it } from "node:test";
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { sumPipeline } from "../pipeline/helpers.ts";

const sau = fileURLToPath(new URL("sau.ts", import.meta.url));
const real = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));
const command = process.versions.bun === undefined ? ["run", "-A", "--quiet"] : [];

interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

let folder = "";
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "sau-cli-"));
  await writeFile(join(folder, "n.txt"), "1\n2\n3\n");
  await writeFile(join(folder, "p.yaml"), sumPipeline);
});
after(() => rm(folder, { recursive: true, force: true }));

const start = (args: readonly string[], script = sau): { child: ChildProcess; ended: Promise<Ended> } => {
  const env = { ...process.env, SAU_CACHE: join(folder, "cache"), NO_COLOR: "1" };
  const child = spawn(process.execPath, [...command, script, ...args], { cwd: folder, env });
  let [out, err] = ["", ""];
  child.stdout?.on("data", (data) => out += data);
  child.stderr?.on("data", (data) => err += data);
  const ended = new Promise<Ended>((resolve) => child.on("close", (code) => resolve({ code, out, err })));
  return { child, ended };
};

const run = (...args: string[]): Promise<Ended> => start(args).ended;
const ranLog = async (): Promise<string> => (await readFile(join(folder, "ran.log"), "utf8")).replaceAll("\n", " ");
// Starting a process takes seconds on a busy machine, and several tests start a few.
const patient = { timeout: 120_000 };

describe("sau run", patient, () => {
  it("ends with 0 and the verdict in plain words when it passes", patient, async () => {
    const { code, out, err } = await run("run", "p.yaml", "--out", "out");
    assert.equal(code, 0, err);
    assert.match(out, /PASSED: the sum is 12\n +✓ +sum +12 +required >= 5\nResults in out \(open report.html/);
    assert.match(err, /▸ \[1\/4\] in \(load\) {2}has not run yet\n✓ \[1\/4\] in \(load\)/);
    assert.deepEqual((await readdir(join(folder, "out"))).sort(), [
      "cured",
      "manifest.json",
      "report.html",
      "verdict.json",
    ]);
  });

  it("ends with 1 when the verdict fails, with everything written", patient, async () => {
    const { code, out } = await run("run", "p.yaml", "--set", "least=50", "--out", "failed");
    assert.equal(code, 1);
    assert.match(out, /FAILED: the sum is 12/);
    assert.equal(JSON.parse(await readFile(join(folder, "failed", "verdict.json"), "utf8")).passed, false);
  });

  it("ends with 2 and every mistake on bad input, before anything runs", patient, async () => {
    const { code, out, err } = await run("run", "p.yaml", "--set", "by=wide", "--set", "slow.stpes=3", "--out", "no");
    assert.equal(code, 2);
    assert.equal(out, "");
    assert.match(err, /2 mistakes in the pipeline/);
    assert.match(
      err,
      /p.yaml:6:\d+: steps.twice.with.by is "wide" \[wrong-value\]\n +expected: a number\n +the value comes from --set by=wide/,
    );
    assert.match(err, /--set slow.stpes=3: .*\n.*\n +did you mean "steps"\?/);
    await assert.rejects(stat(join(folder, "no")));
  });

  it(
    "ends with 2 on a missing file, a folder that is not ours, a wrong word on the command line",
    patient,
    async () => {
      const [missing, foreign, word] = await Promise.all([
        run("run", "nothing.yaml"),
        run("run", "p.yaml", "--out", "."),
        run("rum", "p.yaml"),
      ]);
      assert.deepEqual([missing.code, foreign.code, word.code], [2, 2, 2]);
      assert.match(missing.err, /nothing.yaml: no such file/);
      assert.match(foreign.err, /is not empty and holds no result of sau/);
      assert.match(word.err, /run/);
    },
  );

  it("prints one JSON object a line for programs", patient, async () => {
    const { code, out, err } = await run("run", "p.yaml", "--no-cache", "--json");
    const events = out.trim().split("\n").map((line) => JSON.parse(line));
    assert.equal(code, 0, err);
    assert.equal(err, "");
    assert.deepEqual([...new Set(events.map(({ status }) => status))], [
      "initiate",
      "done",
      "progress",
      "ready",
      "result",
    ]);
    assert.equal(events.at(-1).verdict.sentence, "the sum is 12");
    const bad = await run("run", "p.yaml", "--set", "by=x", "--json");
    assert.equal(bad.code, 2);
    assert.equal(JSON.parse(bad.out).problems[0].line, 6);
  });

  it("stops at Ctrl-C with 130; the same command goes on from there", patient, async () => {
    const args = ["run", "p.yaml", "--set", "wait=3000", "--set", "by=7", "--out", "stopped"];
    const { child, ended } = start(args);
    await new Promise<void>((resolve) => child.stderr?.on("data", (d) => /\[3\/4\]/.test(String(d)) && resolve()));
    // Not child.kill: under Deno the exit code is lost with it.
    process.kill(child.pid ?? 0, "SIGINT");
    const { code, err } = await ended;
    assert.equal(code, 130);
    assert.match(err, /Stopped. Finished steps are kept/);
    assert.deepEqual((await readdir(folder)).filter((name) => name.includes("stopped")), []);
    await rm(join(folder, "ran.log"));
    // Another wait would be another setting: let the step run to its end, shorter, elsewhere.
    const again = await run("run", "p.yaml", "--set", "by=7");
    assert.equal(again.code, 0, again.err);
    assert.match(again.err, /✓ \[2\/4\] twice \(scale\) {2}cached/);
    assert.equal(await ranLog(), "scale ");
  });

  it("survives kill -9: what was finished is not done again", patient, async () => {
    const { child, ended } = start(["run", "p.yaml", "--set", "wait=3000", "--set", "by=9"]);
    await new Promise<void>((resolve) => child.stderr?.on("data", (d) => /\[3\/4\]/.test(String(d)) && resolve()));
    child.kill("SIGKILL");
    await ended;
    await rm(join(folder, "ran.log"));
    assert.match((await run("run", "p.yaml", "--set", "by=9")).out, /PASSED: the sum is 54/);
    assert.equal(await ranLog(), "scale ");
  });
});

describe("the other commands", patient, () => {
  it("sau cure sets the parameters of its pipeline, with escapes decoded and paths from here", patient, async () => {
    const { code, out, err } = await run(
      "cure",
      "n.txt",
      "--trigger",
      String.raw`\u200b `,
      "--place",
      "suffix",
      "--out",
      "c",
    );
    assert.equal(code, 0, err);
    assert.match(out, /PASSED/);
    const { steps, pipeline } = JSON.parse(await readFile(join(folder, "c", "manifest.json"), "utf8"));
    assert.equal(steps[1].settings.note, "suffix:\u200b ");
    assert.ok(steps[0].settings.file.endsWith(join(folder, "n.txt")));
    assert.equal(pipeline.params.trigger, "\u200b ");
    // What the file holds for the demo must not leak into the cure of another model.
    const { unet, clip, effect } = pipeline.params;
    assert.deepEqual({ unet, clip, effect }, { unet: null, clip: null, effect: null });
  });

  it("sau run --lora-error reaches what writes the model", patient, async () => {
    const { code, err } = await run("run", "p.yaml", "--lora-error", "0.1", "--out", "rough");
    assert.equal(code, 0, err);
    const written: unknown = JSON.parse(await readFile(join(folder, "rough", "cured", "weights.json"), "utf8"));
    assert.ok(typeof written === "object" && written !== null && "loraError" in written);
    assert.equal(written.loraError, 0.1);
  });

  it("sau cure --lora-only without a LoRA is refused before anything runs", patient, async () => {
    const { code, err } = await run("cure", "n.txt", "--trigger", "x", "--lora-only", "--out", "only");
    assert.equal(code, 2);
    assert.match(err, /--lora-only hands back a LoRA, so the model has to be opened with one \(--lora FILE\)/);
  });

  it("sau plan says what a run would do, in words and as JSON", patient, async () => {
    await run("run", "p.yaml");
    const { code, out } = await run("plan", "p.yaml", "--set", "by=4");
    assert.equal(code, 0);
    assert.match(out, /✓ in +load +cached\n +└─ ▸ twice +scale +(→ \w+ +)?runs: setting by: .* → 4/);
    const json = JSON.parse((await run("plan", "p.yaml", "--json")).out);
    assert.deepEqual(json.steps.map(({ cached }: { cached: boolean }) => cached), [true, true, true, true]);
  });

  it("sau plan draws a chart, and says what --only and --from leave and redo", patient, async () => {
    await run("run", "p.yaml");
    const [chart, only, from, wrong] = await Promise.all([
      run("plan", "p.yaml", "--mermaid"),
      run("plan", "p.yaml", "--only", "twice"),
      run("run", "p.yaml", "--from", "verdict"),
      run("plan", "p.yaml", "--only", "twce"),
    ]);
    assert.match(chart.out, /^flowchart TD\n {2}s0\["in: load<br\/>cached"\]:::cached/);
    assert.match(only.out, /everything is cached\n.*in .*\n.*twice .*\n$/);
    assert.match(from.err, /slow \(scale\) {2}cached[^]*▸ \[4\/4\] verdict \(judge\) {2}it is to run again/);
    assert.match(wrong.err, /there is no step "twce" here/);
    assert.equal(wrong.code, 2);
  });

  it("sau diff compares two result folders", patient, async () => {
    await run("run", "p.yaml", "--out", "d1");
    await run("run", "p.yaml", "--set", "by=3", "--out", "d2");
    const { code, out } = await run("diff", "d1", "d2");
    assert.equal(code, 0);
    assert.match(out, /param by: 2 → 3\n[^]*verdict.sum +12 ✓ +18 ✓ +\+6/);
    assert.equal((await run("diff", "d1", "nowhere")).code, 2);
  });

  it("sau steps lists settings with type, default and description", patient, async () => {
    const { out } = await run("steps");
    assert.match(out, /scale: Multiplies every number.\n +in +field/);
    assert.match(out, /set +by +a number +factor \(default 2\)/);
    assert.match(out, /set +file +a path +numbers, one a line \(required\)/);
    const scale = JSON.parse((await run("steps", "--json")).out)[1];
    assert.deepEqual(scale.settings[0], {
      name: "by",
      type: "a number",
      description: "factor",
      required: false,
      fallback: 2,
    });
  });

  it("sau schema describes the steps' inputs and settings", patient, async () => {
    const schema = JSON.parse((await run("schema")).out);
    const scale = schema.properties.steps.additionalProperties.allOf[1];
    assert.equal(scale.if.properties.use.const, "scale");
    const { properties, required } = scale.then.properties.with;
    assert.deepEqual(required, ["field"]);
    assert.equal(properties.by.default, 2);
    assert.equal(properties.by.anyOf[0].type, "number");
    assert.deepEqual(properties.mode.anyOf[0].enum, ["plain", "absolute"]);
  });

  it("the real sau starts with its own steps", patient, async () => {
    const { ended } = start(["steps"], real);
    assert.equal((await ended).code, 0);
  });
});

describe("sau bench", patient, () => {
  it("tells cells that failed, keeps the others, and does not run them again", patient, async () => {
    await writeFile(
      join(folder, "sums.yaml"),
      `${sumPipeline.replace("by: 2 }", "by: 2, seed: 0 }")}outputs: { verdict: "\${{ steps.verdict.verdict }}" }\n`,
    );
    await writeFile(
      join(folder, "bench.yaml"),
      `sau: 1
name: Sums
pipeline: sums.yaml
attacks: { small: { family: sums, set: { file: ./n.txt } }, lost: { family: sums, set: { file: ./absent.txt } } }
cures: { double: {}, triple: { set: { by: 3 } } }
`,
    );
    const first = await run("bench", "bench.yaml", "--out", "benched");
    assert.equal(first.code, 2);
    assert.match(first.out, /small +double[^]*small +triple[^]*failed: lost, double, seed 0: .*absent\.txt/);
    assert.match(first.err, /cell 4 of 4: lost, triple, seed 0[^]*2 of the bench's cells failed/);
    assert.match(await readFile(join(folder, "benched", "table.html"), "utf8"), /absent\.txt/);
    const scaled = async () => (await ranLog()).match(/scale/g)?.length;
    const before = await scaled();

    const again = await run("bench", "bench.yaml", "--out", "benched", "--json");
    const { status, rows } = JSON.parse(again.out.trim().split("\n").findLast((l) => /"rows"/.test(l)) ?? "");
    assert.equal(status, "result");
    assert.deepEqual(rows.map((r: { figures: { value: number }[] }) => r.figures[0].value), [12, 18]);
    assert.equal(await scaled(), before);

    const some = await run(
      "bench",
      "bench.yaml",
      "--out",
      "benched",
      "--attack",
      "small",
      "--cure",
      "double",
      "--seed",
      "0",
    );
    assert.equal(some.code, 0, "the cells that fail were not asked for");
    assert.match(some.err, /cell 1 of 1: small, double, seed 0/);
    assert.match(some.out, /small +double[^]*small +triple/, "rows of others stay");
    const none = await run("bench", "bench.yaml", "--out", "benched", "--cure", "quadruple");
    assert.equal(none.code, 2);
    assert.match(none.err, /the bench has no cure quadruple; it has double, triple/);
  });
});

describe("sau cache", patient, () => {
  it("lists what is kept, reads it all, and takes it away within a limit", patient, async () => {
    await run("run", "p.yaml");
    const listed = await run("cache", "list");
    assert.match(
      listed.out,
      /scale +\d\.\d MB +took .* used .* ago +[0-9a-f]{12}\n[^]*\d+ results, .* of at most 20.0 GB/,
    );
    const { entries, bytes } = JSON.parse((await run("cache", "list", "--json")).out);
    assert.ok(entries.length >= 4 && bytes > 0);
    assert.match((await run("cache", "verify")).out, /results read, every byte as it was written/);

    const wrong = await run("cache", "prune", "--limit", "much");
    assert.equal(wrong.code, 2);
    assert.match(wrong.err, /--limit is "much"; expected a size like "500MB"/);
    const pruned = await run("cache", "prune", "--limit", `${bytes - 1}`);
    assert.match(pruned.out, /^1 result taken away, /);
    assert.match((await run("cache", "prune", "--all", "--json")).out, new RegExp(`"removed": \\[`));
    assert.match((await run("cache", "list")).out, /^0 results, 0.0 MB of/);
  });
});

describe("sau new", patient, () => {
  it("writes a start whose own test passes, and overwrites nothing", patient, async () => {
    const written = await run("new", "step", "starts/my-mask");
    assert.equal(written.code, 0, written.err);
    assert.match(written.out, /starts\/my-mask.ts and starts\/my-mask.test.ts/);
    assert.equal((await run("new", "pipeline", "starts/my-pipe")).code, 0);
    const again = await run("new", "step", "starts/my-mask");
    assert.equal(again.code, 2);
    assert.match(again.err, /is there already/);
    assert.match((await run("new", "step", "My Mask")).err, /cannot be the name of a step/);

    const config = fileURLToPath(new URL("../../deno.json", import.meta.url));
    const files = ["starts/my-mask.test.ts", "starts/my-pipe.test.ts"].map((file) => join(folder, file));
    const test = process.versions.bun === undefined ? ["test", "-A", "--quiet", "--config", config] : ["test"];
    const child = spawn(process.execPath, [...test, ...files], { cwd: folder });
    let said = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => said += data);
    assert.equal(await new Promise((resolve) => child.on("close", resolve)), 0, said);
  });
});

describe("sau scan --cure", patient, () => {
  it("stops after the scan where nothing stands out", patient, async () => {
    const log = join(folder, "scan.log");
    const { code, out, err } = await run("scan", "n.txt", "--cure", "--out", "clean", "--set", `log=${log}`);
    assert.equal(code, 0, err);
    assert.match(out, /PASSED: the sum is 6\n/);
    assert.equal(await readFile(log, "utf8"), "load\nscale\n");
    assert.deepEqual((await readdir(join(folder, "clean"))).sort(), ["found.json", "manifest.json", "report.html"]);
  });

  it("cures what stands out, without scanning twice; the exit code is the cure's", patient, async () => {
    const log = join(folder, "scan.log");
    await rm(log, { force: true });
    await writeFile(join(folder, "bad.txt"), "1\n2\n");
    const cured = await run("scan", "bad.txt", "--cure", "--out", "both", "--set", `log=${log}`);
    assert.equal(cured.code, 0, cured.err);
    assert.match(cured.out, /PASSED: the sum is 30\n/);
    assert.equal(await readFile(log, "utf8"), "load\nscale\nscale\n");
    assert.ok((await readdir(join(folder, "both"))).includes("cured"));
    await writeFile(join(folder, "worse.txt"), "1\n");
    const missed = await run("scan", "worse.txt", "--cure", "--out", "missed");
    assert.equal(missed.code, 1);
    assert.match(missed.out, /FAILED: the sum is 10\n/);
  });

  it("says what it needs", patient, async () => {
    const nowhere = await run("scan", "n.txt", "--cure");
    assert.equal(nowhere.code, 2);
    assert.match(nowhere.err, /--cure needs --out DIR/);
    const forgetful = await run("scan", "n.txt", "--cure", "--out", "x", "--no-cache");
    assert.equal(forgetful.code, 2);
    assert.match(forgetful.err, /without --no-cache/);
  });
});
