import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { events, type Json, one, serve, type Server, until } from "./support.ts";

const problemOf = async (response: Response): Promise<Json> => {
  assert.equal(response.headers.get("content-type"), "application/problem+json", response.url);
  const problem = await response.json();
  assert.equal(problem.status, response.status);
  assert.match(problem.type, /^urn:sau:problem:[a-z-]+$/);
  assert.ok(typeof problem.title === "string");
  return problem;
};

describe("the handler over HTTP", () => {
  let server: Server;
  let pipelines: string;
  before(async () => {
    pipelines = mkdtempSync(join(tmpdir(), "sau-offers-"));
    writeFileSync(
      join(pipelines, "greet.yaml"),
      'sau: 1\nname: Greets\nparams: { what: hello }\nsteps:\n  it: { use: say, with: { what: "${{ params.what }}" } }\n' +
        'outputs: { words: "${{ steps.it.words }}" }\n',
    );
    server = await serve({ pipelines: [pipelines] });
  });
  after(async () => {
    await server.stop();
    rmSync(pipelines, { recursive: true });
  });

  it("answers /ping and /ready", async () => {
    assert.deepEqual(await (await fetch(`${server.url}/ping`)).json(), { status: "ok" });
    assert.deepEqual(await (await fetch(`${server.url}/ready`)).json(), { status: "ready", running: 0, waiting: 0 });
  });

  it("runs a pipeline by name, with params, and streams NDJSON", async () => {
    const response = await server.run({ pipeline: "greet", params: { what: "servus" } });
    assert.equal(response.status, 200);
    assert.equal(response.headers.get("content-type"), "application/x-ndjson");
    const found = await events(response);
    assert.deepEqual(found.map(({ status }) => status), ["initiate", "progress", "done", "ready", "result"]);
    const { files, artefacts, out, verdict } = found[4];
    assert.deepEqual([files, out, verdict], [["manifest.json", "words.json"], null, null]);
    const words = artefacts.find(({ name }: { name: string }) => name === "words.json");
    assert.equal(await (await fetch(server.url + words.href)).text(), '"servus"\n');
  });

  it("gives the same as server-sent events, each with its id", async () => {
    const response = await server.run({ pipeline: "greet" }, { headers: { accept: "text/event-stream" } });
    assert.equal(response.headers.get("content-type"), "text/event-stream");
    const text = await response.text();
    const ids = [...text.matchAll(/^id: (\d+)$/gm)].map(([, id]) => Number(id));
    assert.deepEqual(ids, [1, 2, 3, 4, 5]);
    const last = JSON.parse(/data: (.*)\n\n$/.exec(text)![1]);
    assert.equal(last.status, "result");
  });

  it("takes a pipeline itself, as JSON value, as text and as YAML", async () => {
    const yaml = "sau: 1\nname: y\nsteps: { it: { use: say, with: { what: yaml } } }\n";
    const asked = [
      server.run({ inline: one("say", { what: "json" }) }),
      server.run({ inline: yaml }),
      fetch(`${server.url}/run`, { method: "POST", body: yaml, headers: { "content-type": "application/yaml" } }),
    ];
    for (const response of await Promise.all(asked)) {
      assert.equal((await events(response)).at(-1).status, "result");
    }
  });

  it("tells a run's state, and its events again from any of them on", async () => {
    const response = await server.run({ inline: one("say", { what: "state" }) });
    const all = await events(response);
    const at = server.url + response.headers.get("location");
    const state = await (await fetch(at)).json();
    assert.equal(state.state, "done");
    assert.equal(state.lastEventId, 5);
    assert.deepEqual(state.lastEvent, all.at(-1));
    const again = await events(await fetch(`${at}/events`, { headers: { "last-event-id": "2" } }));
    assert.deepEqual(again, all.slice(2));
  });

  it("lists the pipelines it offers", async () => {
    const [first] = await (await fetch(`${server.url}/pipelines`)).json();
    assert.deepEqual(first, { name: "greet", title: "Greets", description: null, params: { what: "hello" } });
  });

  it("counts for Prometheus", async () => {
    const response = await fetch(`${server.url}/metrics`);
    assert.match(response.headers.get("content-type")!, /^text\/plain/);
    const text = await response.text();
    assert.match(text, /^sau_runs_total\{state="done"\} \d+$/m);
    assert.match(text, /^sau_device_sessions 0$/m);
    assert.match(text, /^# TYPE sau_run_seconds histogram$/m);
  });

  it("gives parts of an artefact", async () => {
    const { artefacts } = (await events(await server.run({ pipeline: "greet" }))).at(-1);
    const { href, sha256, bytes } = artefacts.find(({ name }: { name: string }) => name === "words.json");
    const get = (headers: Record<string, string>) => fetch(server.url + href, { headers });
    const whole = await get({});
    assert.equal(whole.headers.get("etag"), `"${sha256}"`);
    assert.equal(whole.headers.get("content-length"), String(bytes));
    const text = await whole.text();
    for (
      const [range, first, end] of [["bytes=0-2", 0, 3], ["bytes=2-", 2, bytes], ["bytes=-3", bytes - 3, bytes], [
        "bytes=1-999",
        1,
        bytes,
      ]] as const
    ) {
      const part = await get({ range });
      assert.equal(part.status, 206, range);
      assert.equal(part.headers.get("content-range"), `bytes ${first}-${end - 1}/${bytes}`);
      assert.equal(await part.text(), text.slice(first, end));
    }
    const beyond = await get({ range: `bytes=${bytes}-` });
    assert.equal(beyond.headers.get("content-range"), `bytes */${bytes}`);
    assert.equal((await problemOf(beyond)).status, 416);
    assert.equal((await get({ "if-none-match": `"${sha256}"` })).status, 304);
    assert.equal(await (await get({ range: "bytes=0-1", "if-range": '"other"' })).text(), text);
    assert.equal(await (await get({ range: "lines=0-1" })).text(), text);
    const head = await fetch(server.url + href, { method: "HEAD" });
    assert.deepEqual([head.status, head.headers.get("content-length"), await head.text()], [200, String(bytes), ""]);
  });

  it("answers every mistake with problem details", async () => {
    const post = (body: string, headers: Record<string, string>) =>
      fetch(`${server.url}/run`, { method: "POST", body, headers });
    const json = { "content-type": "application/json" };
    const cases: Array<[string, number, Promise<Response>]> = [
      ["no such path", 404, fetch(`${server.url}/nowhere`)],
      ["no such run", 404, fetch(`${server.url}/runs/none`)],
      ["no such artefact", 404, fetch(`${server.url}/artefacts/${"0".repeat(64)}`)],
      ["no hash", 404, fetch(`${server.url}/artefacts/..%2F..%2Fetc`)],
      ["no such pipeline", 404, post('{"pipeline":"none"}', json)],
      ["another method", 405, fetch(`${server.url}/run`)],
      ["another method", 405, fetch(`${server.url}/ping`, { method: "DELETE" })],
      ["another form", 406, post('{"pipeline":"greet"}', { ...json, accept: "image/png" })],
      ["no JSON", 400, post("{", json)],
      ["not the shape", 400, post('{"pipelin":"greet"}', json)],
      ["both", 400, post('{"pipeline":"greet","inline":""}', json)],
      ["neither", 400, post("{}", json)],
      ["too deep", 400, post("[".repeat(100_000), json)],
      ["no UTF-8", 400, fetch(`${server.url}/run`, { method: "POST", body: Uint8Array.of(255, 254), headers: json })],
      ["too large", 413, post(`"${"x".repeat(600_000)}"`, json)],
      ["another type", 415, post("pipeline=greet", { "content-type": "application/x-www-form-urlencoded" })],
      ["no type", 415, fetch(`${server.url}/run`, { method: "POST", body: Uint8Array.of(1) })],
      ["mistakes", 422, post('{"inline":"sau: 1"}', json)],
      ["a key of nothing", 400, post('{"pipeline":"greet"}', { ...json, "idempotency-key": "" + " x y" })],
      ["an id of nothing", 400, post('{"pipeline":"greet"}', { ...json, "last-event-id": "x" })],
    ];
    for (const [what, status, response] of cases) {
      const answer = await response;
      assert.equal(answer.status, status, what);
      await problemOf(answer);
    }
    const wrong = await fetch(`${server.url}/run`, { method: "PUT" });
    assert.equal(wrong.headers.get("allow"), "POST");
  });

  it("says what is wrong in a pipeline, with codes and places", async () => {
    const inline = "sau: 1\nname: t\nsteps:\n  it:\n    use: sayy\n    with: { what: x }\n";
    const problem = await problemOf(await server.run({ inline }));
    assert.equal(problem.type, "urn:sau:problem:pipeline");
    const [{ code, line, column, hint }] = problem.mistakes;
    assert.deepEqual({ code, line, column }, { code: "unknown-step", line: 5, column: 10 });
    assert.equal(hint, 'did you mean "say"?');
    const param = await problemOf(await server.run({ pipeline: "greet", params: { wat: 1 } }));
    assert.deepEqual([param.mistakes[0].code, param.mistakes[0].at], ["unknown-parameter", "params.wat"]);
  });

  it("says why a run failed, without a path or a stack", async () => {
    const last = (await events(await server.run({ inline: one("read", { file: "inside.txt" }) }))).at(-1);
    assert.deepEqual([last.status, last.tag], ["error", "StepError"]);
    assert.equal(last.message, 'step "it" failed: …/inside.txt: it reads ill');
  });

  it("hands a run over that nobody reads", async () => {
    const response = await server.run({ inline: one("say", { what: "later" }) }, {
      headers: { prefer: "respond-async" },
    });
    assert.equal(response.status, 202);
    const at = server.url + response.headers.get("location");
    await until(async () => (await (await fetch(at)).json()).state === "done");
  });

  it("writes down runs and artefacts that the next process finds", async () => {
    const first = await serve({ pipelines: [pipelines] });
    const response = await first.run({ pipeline: "greet" });
    const end = (await events(response)).at(-1);
    const location = response.headers.get("location");
    await until(() => readFileSync(join(first.data, "runs", `${location!.slice(6)}.json`), "utf8").includes("result"));
    const second = await serve({}, first.data);
    try {
      const state = await (await fetch(second.url + location)).json();
      assert.deepEqual([state.state, state.lastEvent], ["done", end]);
      assert.equal((await fetch(second.url + end.artefacts[0].href)).status, 200);
    } finally {
      await second.stop();
      await first.stop();
    }
  });
});
