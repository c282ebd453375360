/** A real headless Chromium, driven over its DevTools protocol; undefined where none is installed. */
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/** The browser's command, where there is one. */
export const chromium: string | undefined = NAMES.find((name) =>
  spawnSync(name, ["--version"], { stdio: "ignore" }).status === 0
);

export interface Page {
  /** Runs a script in the page; promises are awaited, the value comes back as JSON. */
  readonly evaluate: <A>(script: string) => Promise<A>;
  /** Messages of the console and uncaught errors. */
  readonly complaints: ReadonlyArray<string>;
  readonly close: () => Promise<void>;
}

/** Opens an address. */
export const openPage = async (url: string): Promise<Page> => {
  const profile = mkdtempSync(join(tmpdir(), "sau-chromium-"));
  const flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run"];
  const child = spawn(chromium!, [...flags, `--user-data-dir=${profile}`, "about:blank"]);
  const ended = new Promise<void>((done) => child.on("exit", () => done()));
  const port = await new Promise<string>((resolve, reject) => {
    let text = "";
    child.stderr.on("data", (data) => {
      text += data;
      const match = /listening on ws:\/\/127\.0\.0\.1:(\d+)/.exec(text);
      if (match !== null) resolve(match[1]);
    });
    child.on("exit", () => reject(new Error(`Chromium ended: ${text}`)));
  });
  const targets: Array<{ type: string; webSocketDebuggerUrl: string }> =
    await (await fetch(`http://127.0.0.1:${port}/json/list`)).json();
  const socket = new WebSocket(targets.find(({ type }) => type === "page")!.webSocketDebuggerUrl);
  await new Promise((done) => socket.addEventListener("open", done, { once: true }));
  const waiting = new Map<number, (answer: Record<string, unknown>) => void>();
  const complaints: string[] = [];
  let loaded = () => {};
  socket.addEventListener("message", ({ data }) => {
    const message = JSON.parse(String(data));
    if (message.id !== undefined) waiting.get(message.id)?.(message.result ?? message);
    if (message.method === "Page.loadEventFired") loaded();
    if (["Log.entryAdded", "Runtime.exceptionThrown"].includes(message.method)) {
      complaints.push(JSON.stringify(message.params.entry?.text ?? message.params));
    }
  });
  let next = 1;
  const send = (method: string, params: unknown = {}): Promise<Record<string, unknown>> =>
    new Promise((resolve) => {
      waiting.set(next, resolve);
      socket.send(JSON.stringify({ id: next++, method, params }));
    });
  for (const domain of ["Page", "Runtime", "Log"]) await send(`${domain}.enable`);
  const ready = new Promise<void>((done) => loaded = done);
  await send("Page.navigate", { url });
  await ready;
  return {
    complaints,
    evaluate: async <A>(expression: string) => {
      const answer = await send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
      if ("exceptionDetails" in answer) throw new Error(JSON.stringify(answer.exceptionDetails));
      return (answer.result as { value: A }).value;
    },
    close: async () => {
      socket.close();
      child.kill("SIGKILL");
      await ended;
      // Its own children may write for a moment longer; what they leave lies among the system's temporary files.
      try {
        rmSync(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
      } catch { /* it is no part of what is tested */ }
    },
  };
};
