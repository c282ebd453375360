/**
 * Every test under Deno and under Bun, both at once: each leaves cores idle that the other can use. Deno's lines come as they
 * are written, Bun's after them, so that both read as if run alone. Exit code 1 when either fails.
 */
import { type ChildProcess, spawn } from "node:child_process";
import process from "node:process";
import { fileURLToPath } from "node:url";

const cwd = fileURLToPath(new URL("..", import.meta.url));

/** The exit code; a process that cannot start or is killed has failed. */
const ended = (child: ChildProcess): Promise<number> =>
  new Promise((resolve) => {
    child.on("error", (error) => {
      process.stderr.write(`${error.message}\n`);
      resolve(1);
    });
    child.on("close", (code) => resolve(code ?? 1));
  });

const deno = spawn(process.execPath, ["task", "test:deno"], { cwd, stdio: "inherit" });
const bun = spawn(process.execPath, ["task", "test:bun"], { cwd, stdio: ["ignore", "pipe", "pipe"] });
const said: Uint8Array[] = [];
for (const stream of [bun.stdout, bun.stderr]) stream.on("data", (data: Uint8Array) => said.push(data));

const bunEnded = ended(bun);
const codes = [await ended(deno), await bunEnded];
for (const data of said) process.stdout.write(data);
process.exitCode = codes.some((code) => code !== 0) ? 1 : 0;
