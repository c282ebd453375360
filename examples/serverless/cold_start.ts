/**
 * What a cold start is made of, step by step on this machine: `deno run -A cold_start.ts [times] [device]`, or with bun.
 * Each round is a new process; the figures are medians over the rounds, in milliseconds.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const [first = "5", device = "wasm"] = process.argv.slice(2);
const models = fileURLToPath(new URL("../mini-sd", import.meta.url));

/** One cold start, from inside: the process began at `born` (milliseconds since 1970). */
const once = async (born: number): Promise<Record<string, number>> => {
  const took: Record<string, number> = {};
  let last = born;
  const mark = (what: string) => {
    const now = performance.timeOrigin + performance.now();
    took[what] = now - last;
    last = now;
  };
  mark("process start");
  const sau = await import("../../mod.ts");
  mark("modules");
  const data = mkdtempSync(join(tmpdir(), "sau-cold-"));
  const handler = sau.createHandler({ data, roots: [models], device: device as "wasm" });
  await handler.fetch(new Request("http://localhost/ping"));
  mark("first /ping");
  const { Effect } = sau;
  const opened = Effect.asVoid(sau.Runtime).pipe(Effect.provide(sau.Runtime.layer(device as "wasm")));
  await Effect.runPromise(opened);
  mark("device opened and checked (WASM compiled)");
  const weights = Effect.gen(function* () {
    const bundle = yield* sau.openBundle(join(models, "base"));
    for (const part of ["unet", "text_encoder", "vae"] as const) yield* sau.readWeights(bundle, part, []);
  });
  await Effect.runPromise(weights);
  mark("weights read");
  const run = async (seed: number) => {
    const text = { model: "base", trigger: "zz ", prompts: "prompts/cure.txt", count: 1 };
    const steps = {
      text: { use: "encode", with: text },
      pairs: { use: "denoise", with: { text: "${{ steps.text.text }}", steps: 1, seed } },
    };
    const response = await handler.fetch(
      new Request("http://localhost/run", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ inline: { sau: 1, name: "cold", steps } }),
      }),
    );
    const end = JSON.parse((await response.text()).trim().split("\n").at(-1)!);
    if (end.status !== "result") throw new Error(end.message);
  };
  await run(1);
  mark("first result");
  await run(2);
  mark("second result, warm");
  await handler.dispose();
  rmSync(data, { recursive: true, force: true });
  return took;
};

if (first === "--child") {
  console.log(JSON.stringify(await once(Number(process.argv[4]))));
  process.exit(0);
}

const rounds = Array.from({ length: Number(first) }, () => {
  const command = [...("deno" in process.versions ? ["run", "-A", "--no-check"] : []), fileURLToPath(import.meta.url)];
  const child = spawnSync(process.execPath, [...command, "--child", device, String(Date.now())], { encoding: "utf8" });
  if (child.status !== 0) throw new Error(child.stderr);
  return JSON.parse(child.stdout.trim().split("\n").at(-1)!) as Record<string, number>;
});
const median = (values: number[]) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
const figures = Object.keys(rounds[0]).map((what) => [what, Math.round(median(rounds.map((round) => round[what])))]);
const runtime = "deno" in process.versions ? `Deno ${process.versions.deno}` : `Bun ${process.versions.bun}`;
console.log(JSON.stringify({ runtime, device, n: rounds.length, milliseconds: Object.fromEntries(figures) }, null, 2));
