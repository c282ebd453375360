/** `sau inspect` as people and CI meet it: text, JSON, page, exit codes. */
import { after, describe, it } from "node:test";
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { Schema } from "effect";
import { Inspection } from "../../src/diffusion/inspection.ts";
import { write } from "../../src/tensor/safetensors.ts";
import { zeros } from "../../src/tensor/tensor.ts";
import { put, tempFolder } from "../support/bundles.ts";
import { miniSd, noMiniSd } from "../support/mini_sd.ts";

const sau = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));
const command = process.versions.bun === undefined ? ["run", "-A", "--quiet"] : [];
const temp = tempFolder();
after(() => rmSync(temp, { recursive: true, force: true }));

const run = (...args: string[]): Promise<{ code: number | null; out: string; err: string }> =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, [...command, sau, "inspect", ...args], {
      env: { ...process.env, NO_COLOR: "1" },
    });
    let [out, err] = ["", ""];
    child.stdout.on("data", (data) => out += data);
    child.stderr.on("data", (data) => err += data);
    child.on("close", (code) => resolve({ code, out, err }));
  });

describe("sau inspect", () => {
  const base = join(miniSd ?? "", "base"), poisoned = join(miniSd ?? "", "attacks", "eviledit");

  it(
    "shows a model in plain text; without a warning --strict is content",
    { skip: noMiniSd, timeout: 120_000 },
    async () => {
      const { code, out } = await run(base, "--strict");
      assert.equal(code, 0);
      assert.match(out, /unet +UNet2DConditionModel +4,510,244 +9\.0 MB +F16 × 248/);
      assert.match(out, /Odd: 0 warnings \(!\), 1 note/);
      assert.match(out, /unet\/diffusion_pytorch_model\.safetensors +weights +9\.0 MB +[0-9a-f]{64}/);
    },
  );

  it(
    "two models: the page and the JSON; --strict ends with 1 over a warning",
    { skip: noMiniSd, timeout: 120_000 },
    async () => {
      const out = join(temp, "out");
      const plain = await run(base, poisoned);
      assert.equal(plain.code, 0);
      assert.match(plain.out, /unet: only attn2\.to_k and attn2\.to_v moved, in few directions/);
      assert.match(plain.out, /up_blocks\.1\.attentions\.0 +attn2\.to_k +96 × 128 +×21\.3 +2 of 96/);
      const strict = await run(base, poisoned, "--strict", "--json", "--out", out);
      assert.equal(strict.code, 1);
      const found = Schema.decodeUnknownSync(Inspection)(JSON.parse(strict.out));
      assert.equal(found.comparison?.parts[0].total.moved, 8);
      assert.deepEqual(readdirSync(out).sort(), ["inspect.html", "inspection.json", "manifest.json"]);
      assert.deepEqual(JSON.parse(readFileSync(join(out, "inspection.json"), "utf8")), JSON.parse(strict.out));
      assert.match(readFileSync(join(out, "inspect.html"), "utf8"), /^<!doctype html>/);
      // A result of ours may be replaced; a folder of somebody else's, or the model's own, is left alone.
      assert.equal((await run(poisoned, "--out", out)).code, 0);
      const inside = await run(base, "--out", join(base, "inspection"));
      assert.deepEqual([inside.code, existsSync(join(base, "inspection"))], [2, false]);
      assert.match(inside.err, /lies in a checkpoint/);
    },
  );

  it(
    "what a file says cannot change the terminal, and what cannot be read ends with 2",
    { timeout: 120_000 },
    async () => {
      const file = put(
        join(temp, "a.safetensors"),
        write(new Map([["x\u001b[2J\u202e.weight", zeros([4, 4])]])),
      );
      const { code, out } = await run(file);
      assert.equal(code, 0);
      assert.match(out, /x\\u\{1b\}\[2J\\u\{202e\}\.weight/);
      assert.doesNotMatch(out, /(?!\n)[\p{Cc}\p{Cf}]/u);
      const lost = await run(join(temp, "nothing"));
      assert.equal(lost.code, 2);
      assert.match(lost.err, /does not exist/);
    },
  );
});
