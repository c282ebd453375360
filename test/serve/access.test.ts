import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server as HttpServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { request as rawRequest } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { createHandler } from "../../src/serve/handler.ts";
import { isLoopback } from "../../src/serve/access.ts";
import { strippedOfPaths, withoutPaths } from "../../src/serve/problems.ts";
import { events, type Json, one, serve, type Server } from "./support.ts";

const TOKEN = "a token of sixteen letters";
const problem = async (response: Response): Promise<string> =>
  `${response.status} ${((await response.json()) as Json).type.replace("urn:sau:problem:", "")}`;

/** A request whose headers are exactly these: fetch would set Host itself. */
const raw = (url: string, headers: Record<string, string>): Promise<number> =>
  new Promise((resolve, reject) => {
    rawRequest(url, { headers }, (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    }).on("error", reject).end();
  });

describe("who may ask", () => {
  let server: Server;
  before(async () => {
    server = await serve({ tokens: [TOKEN, "another token of sixteen letters"] });
  });
  after(() => server.stop());

  it("only bearers of a known token; health needs none", async () => {
    const get = (path: string, token?: string) =>
      fetch(server.url + path, { headers: token === undefined ? {} : { authorization: `Bearer ${token}` } });
    for (const path of ["/metrics", "/pipelines", "/runs/x", "/runs/x/events", `/artefacts/${"0".repeat(64)}`]) {
      for (const token of [undefined, "", "wrong", `${TOKEN}x`, TOKEN.slice(0, -1)]) {
        assert.equal(await problem(await get(path, token)), "401 unauthorized", `${path} ${token}`);
      }
    }
    assert.equal((await get("/metrics")).headers.get("www-authenticate"), "Bearer");
    assert.equal((await server.run({ inline: one("say", { what: "x" }) })).status, 401);
    assert.equal((await get("/metrics", TOKEN)).status, 200);
    assert.equal((await get("/ping")).status, 200);
  });

  it("a client sees its own runs alone", async () => {
    const mine = { headers: { authorization: `Bearer ${TOKEN}` } };
    const response = await server.run({ inline: one("say", { what: "x" }) }, mine);
    await events(response);
    const at = server.url + response.headers.get("location");
    assert.equal((await fetch(at, mine)).status, 200);
    const other = { headers: { authorization: "Bearer another token of sixteen letters" } };
    assert.equal(await problem(await fetch(at, other)), "404 not-found");
    assert.equal(await problem(await fetch(at, { ...other, method: "DELETE" })), "404 not-found");
  });

  it("a token that could be guessed is refused", () => {
    assert.throws(() => createHandler({ data: tmpdir(), tokens: ["short"] }), /16 characters/);
  });

  it("without tokens, only under a name of this machine", async () => {
    const open = await serve();
    try {
      assert.equal(await raw(`${open.url}/ping`, { host: "127.0.0.1:80" }), 200);
      assert.equal(await raw(`${open.url}/pipelines`, { host: "rebound.example" }), 403);
    } finally {
      await open.stop();
    }
    const names = ["localhost", "127.0.0.1", "[::1]", "127.8.9.10"];
    assert.deepEqual(names.filter((name) => !isLoopback(name)), []);
    const foreign = ["example.org", "localhost.example.org", "127.0.0.1.example.org", "0.0.0.0", "10.0.0.1"];
    assert.deepEqual(foreign.filter(isLoopback), []);
  });

  it("a page of another site is refused", async () => {
    const own = { authorization: `Bearer ${TOKEN}` };
    const host = new URL(server.url).host;
    assert.equal(await raw(`${server.url}/pipelines`, { ...own, origin: "https://evil.example" }), 403);
    assert.equal(await raw(`${server.url}/pipelines`, { ...own, origin: "null" }), 403);
    assert.equal(await raw(`${server.url}/pipelines`, { ...own, origin: `http://${host}` }), 200);
  });
});

describe("what a pipeline may reach", () => {
  let server: Server;
  let outside: string;
  before(async () => {
    outside = mkdtempSync(join(tmpdir(), "sau-outside-"));
    writeFileSync(join(outside, "secret.txt"), "secret");
    mkdirSync(join(outside, "pipelines"));
    const step = "{ use: read, with: { file: ../secret.txt } }";
    writeFileSync(
      join(outside, "pipelines", "own.yaml"),
      `sau: 1\nname: own\nparams: { other: null }\nsteps:\n  it: ${step}\n  two: { use: read, with: { file: ../secret.txt, other: "\${{ params.other }}" }, if: "\${{ params.other }} != null" }\n`,
    );
    server = await serve({ pipelines: [join(outside, "pipelines")] });
    symlinkSync(outside, join(server.data, "models", "link"));
  });
  after(async () => {
    await server.stop();
    rmSync(outside, { recursive: true });
  });
  const read = (file: string) => server.run({ inline: one("read", { file }) });

  it("reads out of its roots only, whatever the path is dressed as", async () => {
    for (
      const path of [
        join(outside, "secret.txt"),
        "/etc/passwd",
        "../../secret.txt",
        "link/secret.txt",
        "link/../../../etc/passwd",
        "/proc/self/environ",
        "inside.txt/../../runs",
        "../models-too/x",
      ]
    ) assert.equal(await problem(await read(path)), "422 outside-roots", path);
    // A file of the root is read (and found ill by this step).
    assert.equal((await events(await read("inside.txt"))).at(-1).tag, "StepError");
    assert.equal((await events(await read("./x/../inside.txt"))).at(-1).tag, "StepError");
  });

  it("trusts what the server's own pipelines name, and nothing that a request puts in its place", async () => {
    assert.equal((await events(await server.run({ pipeline: "own" }))).at(-1).tag, "StepError");
    const params = { other: "/etc/passwd" };
    assert.equal(await problem(await server.run({ pipeline: "own", params })), "422 outside-roots");
  });

  it("a pipeline that is sent uses no code and no file", async () => {
    for (
      const use of [
        "./evil.ts#step",
        "data:text/javascript,1#x",
        "./own.yaml",
        "../pipelines/own.yaml",
        "poison-badt2i",
      ]
    ) {
      const response = await server.run({ inline: one(use, {}) });
      assert.equal(response.status, 422, use);
      const [{ code }] = ((await response.json()) as Json).mistakes;
      assert.ok(["code-not-allowed", "code-reference", "nested-path", "unknown-step"].includes(code), code);
    }
  });

  it("steps that poison are not there unless they are asked for", async () => {
    const of = async (poison: boolean) => {
      const data = mkdtempSync(join(tmpdir(), "sau-poison-"));
      const handler = createHandler({ data, poison, pipelines: ["pipelines"] });
      const list = await (await handler.fetch(new Request("http://localhost/pipelines"))).json() as Json;
      const asked = await handler.fetch(
        new Request("http://localhost/run", {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify({ inline: one("poison-badt2i", {}) }),
        }),
      );
      const mistakes = ((await asked.json()) as Json).mistakes.map(({ code }: Json) => code);
      await handler.dispose();
      rmSync(data, { recursive: true });
      return {
        offered: list.some(({ name }: Json) => name.startsWith("poison")),
        unknown: mistakes.includes("unknown-step"),
      };
    };
    assert.deepEqual(await of(false), { offered: false, unknown: true });
    assert.deepEqual(await of(true), { offered: true, unknown: false });
  });

  it("a body is not read beyond its bound, whatever it says of its length", async () => {
    let sent = 0;
    const body = new ReadableStream<Uint8Array>({
      pull(controller) {
        sent += 65536;
        if (sent > 64e6) controller.close();
        else controller.enqueue(new Uint8Array(65536).fill(32));
      },
    });
    const answer = await server.handler.fetch(
      // `duplex` is part of fetch and of no type yet.
      new Request("http://localhost/run", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body,
        duplex: "half",
      } as RequestInit),
    );
    assert.equal(await problem(answer), "413 body-too-large");
    assert.ok(sent < 2e6, String(sent));
  });

  it("no answer holds a path or a stack", () => {
    assert.equal(
      withoutPaths("cannot read /home/me/models/x/unet.safetensors: gone"),
      "cannot read …/unet.safetensors: gone",
    );
    assert.equal(withoutPaths('at file:///opt/sau/src/a.ts:1:2 and "C:\\Users\\me\\x"'), 'at …/a.ts:1:2 and "…/x"');
    assert.equal(
      withoutPaths("1/2 of https://example.org/a/b and and/or"),
      "1/2 of https://example.org/a/b and and/or",
    );
    assert.deepEqual(strippedOfPaths({ "/a/b/c": ["/d/e/f", 1, null] }), { "…/c": ["…/f", 1, null] });
    // Two paths that end alike stay two.
    assert.deepEqual(strippedOfPaths({ "/a/unet": 1, "/b/unet": 2 }), { "…/unet": 1, "…/unet (2)": 2 });
  });

  it("what a run leaves names no folder either", async () => {
    const response = await server.run({ inline: one("say", { what: join(outside, "x") }) });
    const { artefacts } = (await events(response)).at(-1);
    for (const { href } of artefacts) {
      const text = await (await fetch(server.url + href)).text();
      for (const folder of [outside, server.data]) assert.ok(!text.includes(folder), href);
    }
  });
});

describe("models by id", () => {
  const COMMIT = "0123456789abcdef0123456789abcdef01234567";
  const weights = new Uint8Array(300_000).map((_, i) => i * 7);
  const config = '{"a":1}';
  let hub: HttpServer;
  let url: string;
  let server: Server;
  let requests: string[] = [];
  let cut = false;
  let forged = false;
  let size = weights.length;

  const sha = (kind: string, data: Uint8Array | string) => createHash(kind).update(data).digest("hex");
  const tree = () => [
    { type: "directory", path: "unet", size: 0, oid: "x" },
    {
      type: "file",
      path: "unet/config.json",
      size: config.length,
      oid: sha("sha1", `blob ${config.length}\0${config}`),
    },
    { type: "file", path: "unet/model.safetensors", size, oid: "x", lfs: { oid: sha("sha256", weights) } },
    { type: "file", path: "unet/pytorch_model.bin", size: 9, oid: "x" },
    { type: "file", path: "unet/model.fp16.safetensors", size: 9, oid: "x" },
    { type: "file", path: "vae/model.fp16.safetensors", size, oid: "x", lfs: { oid: sha("sha256", weights) } },
    { type: "file", path: "../../escape/config.json", size: 9, oid: "x" },
  ];
  const answer = (request: IncomingMessage, response: ServerResponse) => {
    requests.push(`${request.url} ${request.headers.range ?? ""}`.trim());
    if (request.url === `/api/models/good/model/tree/${COMMIT}?recursive=true`) {
      return response.end(JSON.stringify(tree()));
    }
    if (request.url?.endsWith("config.json")) return response.end(config);
    if (request.url?.endsWith(".safetensors")) {
      const from = Number(/bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);
      const bytes = forged ? weights.map((b) => b + 1) : weights;
      response.writeHead(from > 0 ? 206 : 200, { "content-length": bytes.length - from });
      if (!cut) return response.end(bytes.subarray(from));
      cut = false;
      return response.write(bytes.subarray(from, 100_000), () => setTimeout(() => response.destroy(), 20));
    }
    response.writeHead(404).end();
  };
  before(async () => {
    hub = createServer(answer);
    await new Promise<void>((done) => hub.listen(0, "127.0.0.1", done));
    url = `http://127.0.0.1:${(hub.address() as AddressInfo).port}`;
  });
  after(() => new Promise((done) => hub.close(done)));
  const with_ = async (most: number, body: () => Promise<void>) => {
    server = await serve({ hub: { url, allow: ["good/model"], most } });
    requests = [];
    try {
      await body();
    } finally {
      [cut, forged, size] = [false, false, weights.length];
      await server.stop();
    }
  };
  const run = (file: string) => server.run({ inline: one("read", { file }) });
  const fetched = `hf://good/model@${COMMIT}/unet/model.safetensors`;

  it("are fetched once, in the safe form only, half precision where there is no other, into the server's folder", () =>
    with_(1e6, async () => {
      for (let i = 0; i < 2; i++) {
        const last = (await events(await run(fetched))).at(-1);
        // The step finds the file, and finds it ill.
        assert.equal(last.message, 'step "it" failed: …/model.safetensors: it reads ill');
      }
      assert.deepEqual(requests.map((line) => line.split("/").slice(-2).join("/").split("?")[0]), [
        `tree/${COMMIT}`,
        "unet/config.json",
        "unet/model.safetensors",
        "vae/model.fp16.safetensors",
      ]);
    }));

  it("go on where they were cut off", () =>
    with_(1e6, async () => {
      cut = true;
      assert.equal((await events(await run(fetched))).at(-1).tag, "Refusal");
      assert.equal((await events(await run(fetched))).at(-1).tag, "StepError");
      assert.match(requests.at(-2)!, /unet\/model\.safetensors bytes=[1-9]\d*-$/);
    }));

  it("are the bytes of their commit, or none", () =>
    with_(1e6, async () => {
      forged = true;
      assert.match((await events(await run(fetched))).at(-1).message, /not the file of that commit/);
    }));

  it("are no larger than allowed, and no larger than they say", () =>
    with_(2e5, async () => {
      assert.match((await events(await run(fetched))).at(-1).message, /at most 0\.2 MB are fetched/);
      size = 1000;
      assert.match((await events(await run(fetched))).at(-1).message, /longer than the commit says/);
    }));

  it("are on the list and pinned to a commit", () =>
    with_(1e6, async () => {
      for (
        const id of [
          `hf://other/model@${COMMIT}`,
          "hf://good/model",
          "hf://good/model@main",
          `hf://good/model@${COMMIT}0`,
          "HF://good/model",
          `hf://good/../model@${COMMIT}`,
        ]
      ) assert.equal(await problem(await run(id)), "422 model-not-allowed", id);
      assert.equal(await problem(await run(`hf://good/model@${COMMIT}/../../../etc/passwd`)), "422 outside-roots");
      assert.deepEqual(requests, []);
    }));
});
