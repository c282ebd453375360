/**
 * `sau serve` under load: 200 clients for 60 s against mini-SD on loopback. Some runs are new, some from the cache, some
 * clients leave, some ask twice with one key. Counts runs that got lost or were done twice, and measures /ping and memory.
 *
 *     deno run -A bench/serve.ts [clients] [seconds]
 */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const [clients = 200, seconds = 60] = process.argv.slice(2).map(Number);
const root = fileURLToPath(new URL("../", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "sau-load-"));
const device = process.env.SAU_DEVICE ?? "wasm";

const runtime = "deno" in process.versions ? ["run", "-A"] : [];
const flags = ["--port", "0", "--device", device, "--json", "--data", join(folder, "data"), "--queue", String(clients)];
const server = spawn(process.execPath, [
  ...runtime,
  join(root, "src/cli/main.ts"),
  "serve",
  ...flags,
  "--queue-per-client",
  String(clients),
  "--root",
  join(root, "examples/mini-sd"),
], { env: { ...process.env, SAU_CACHE: join(folder, "cache") }, stdio: ["ignore", "pipe", "inherit"] });
const url: string = await new Promise((resolve) =>
  server.stdout.once("data", (line) => resolve(JSON.parse(String(line)).url))
);

const body = (seed: number) =>
  JSON.stringify({
    inline: {
      sau: 1,
      name: "load",
      steps: {
        text: { use: "encode", with: { model: "base", trigger: "zz ", prompts: "prompts/cure.txt", count: 1 } },
        pairs: { use: "denoise", with: { text: "${{ steps.text.text }}", steps: 1, seed } },
      },
    },
  });
const sleep = (ms: number) => new Promise((done) => setTimeout(done, ms));
const gauge = (text: string, name: string) => Number(new RegExp(`^${name} (.*)$`, "m").exec(text)?.[1]);
const metrics = async () => await (await fetch(`${url}/metrics`)).text();

/** What became of each key: the runs that it led to, and the ends that were seen. */
const asked = new Map<string, { ids: Set<string>; ends: string[]; left: boolean }>();
let refused = 0;
let broken = 0;
const until = performance.now() + seconds * 1000;

const send = async (key: string, text: string, leaves: boolean): Promise<void> => {
  const leaving = new AbortController();
  const response = await fetch(`${url}/run`, {
    method: "POST",
    headers: { "content-type": "application/json", "idempotency-key": key },
    body: text,
    signal: leaving.signal,
  });
  if (response.status === 429) {
    refused++;
    await response.body?.cancel();
    return void await sleep(1000);
  }
  const run = asked.get(key)!;
  run.ids.add(response.headers.get("location")!);
  if (leaves) {
    run.left = true;
    await sleep(Math.random() * 2000);
    return leaving.abort();
  }
  const last = JSON.parse((await response.text()).trim().split("\n").at(-1)!);
  run.ends.push(last.status === "error" ? last.tag : last.status);
};

const client = async (n: number): Promise<void> => {
  for (let i = 0; performance.now() < until; i++) {
    const key = `${n}-${i}`;
    asked.set(key, { ids: new Set(), ends: [], left: false });
    const fresh = Math.random() < 0.02;
    const text = body(fresh ? n * 10_000 + i + 100 : (n + i) % 5);
    const twice = Math.random() < 0.2;
    const leaves = !twice && Math.random() < 0.1;
    try {
      await Promise.all([send(key, text, leaves), ...(twice ? [send(key, text, false)] : [])]);
    } catch (error) {
      if (!leaves) broken++;
      if (!leaves) console.error(String(error));
    }
  }
};

const pings: number[] = [];
const memory: number[] = [];
let done = false;
const watch = async () => {
  for (let i = 0; !done; i++) {
    const began = performance.now();
    await (await fetch(`${url}/ping`)).text();
    pings.push(performance.now() - began);
    if (i % 40 === 0) memory.push(gauge(await metrics(), "process_resident_memory_bytes"));
    await sleep(25);
  }
};
const watching = watch();
await Promise.all(Array.from({ length: clients }, (_, n) => client(n)));
done = true;
await watching;

while ((await (await fetch(`${url}/ready`)).json()).running > 0) await sleep(100);
const all = [...asked.values()].filter(({ ids }) => ids.size > 0);
const ended = [...(await metrics()).matchAll(/^sau_runs_total\{state="(\w+)"\} (\d+)$/gm)].map(([, state, n]) => [
  state,
  Number(n),
]);
pings.sort((a, b) => a - b);
const share = (q: number) => Number(pings[Math.min(pings.length - 1, Math.floor(q * pings.length))].toFixed(1));
const quarter = Math.floor(memory.length / 4);
const megabytes = (values: number[]) => Math.round(Math.max(...values) / 1e6);
console.log(JSON.stringify(
  {
    device,
    clients,
    seconds,
    requests: { runs: all.length, refused, broken },
    ended: Object.fromEntries(ended),
    seen: Object.fromEntries(
      Object.entries(Object.groupBy(all.flatMap(({ ends }) => ends), (end) => end)).map(([k, v]) => [k, v!.length]),
    ),
    lost: all.filter(({ left, ends }) => !left && ends.length === 0).length +
      all.length - ended.reduce((sum, [, n]) => sum + Number(n), 0),
    doubled: all.filter(({ ids }) => ids.size > 1).length,
    ping: { n: pings.length, p50: share(0.5), p99: share(0.99), most: share(1) },
    "memory over time, MB": memory.map((bytes) => Math.round(bytes / 1e6)),
    memory: {
      "first quarter, MB": megabytes(memory.slice(0, quarter + 1)),
      "last quarter, MB": megabytes(memory.slice(-quarter - 1)),
      "most, MB": megabytes(memory),
    },
  },
  null,
  2,
));
server.kill("SIGTERM");
await new Promise((ended) => server.on("exit", ended));
rmSync(folder, { recursive: true, force: true });
