import assert from "node:assert/strict";
import { after, afterEach, before, describe, it } from "node:test";
import { EventLog, formatFor } from "../../src/serve/events.ts";
import { Effect, Stream } from "effect";
import { events, type Json, one, serve, type Server, until } from "./support.ts";

const wait = (label: string) => ({ inline: one("wait", { label }) });
const A = "a token of sixteen letters";
const B = "another token of sixteen letters";
const as = (token: string) => ({ headers: { authorization: `Bearer ${token}` } });

describe("the line for the device", () => {
  let server: Server;
  before(async () => {
    server = await serve({ tokens: [A, B], limits: { waiting: 4, waitingPerClient: 3 } });
  });
  after(() => server.stop());
  afterEach(async () => {
    server.gate.open = true;
    await until(async () => (await ready()).running === 0);
    server.gate.open = false;
    server.gate.ran.length = 0;
  });
  const ready = async () => await (await fetch(`${server.url}/ready`)).json();
  /** Begins the only run that computes. */
  const hold = async (token = A) => {
    const answer = await server.run(wait(crypto.randomUUID()), as(token));
    await until(() => server.gate.running.size === 1);
    return answer;
  };

  it("lets clients take turns, whoever asked first", async () => {
    const held = await hold();
    const asked = [];
    for (const label of ["a1", "a2", "a3"]) asked.push(await server.run(wait(label), as(A)));
    asked.push(await server.run(wait("b1"), as(B)));
    assert.deepEqual(await ready(), { status: "ready", running: 1, waiting: 4 });
    server.gate.open = true;
    await Promise.all([held, ...asked].map(events));
    const [, ...order] = server.gate.ran;
    assert.ok(order.indexOf("b1") < order.indexOf("a2"), order.join());
    assert.deepEqual(order.filter((label) => label !== "b1"), ["a1", "a2", "a3"]);
  });

  it("has an end: 429 and Retry-After, for one client before all", async () => {
    const held = await hold();
    const asked = [];
    for (const label of ["1", "2", "3"]) asked.push(await server.run(wait(label), as(A)));
    const own = await server.run(wait("4"), as(A));
    assert.equal(own.status, 429);
    assert.match(own.headers.get("retry-after")!, /^[1-9]\d*$/);
    assert.match((await own.json()).detail, /runs of yours/);
    asked.push(await server.run(wait("5"), as(B)));
    const full = await server.run(wait("6"), as(B));
    assert.deepEqual([full.status, (await full.json()).type], [429, "urn:sau:problem:queue-full"]);
    server.gate.open = true;
    for (const found of await Promise.all([held, ...asked].map(events))) assert.equal(found.at(-1).status, "result");
    assert.equal(server.gate.ran.length, 5);
  });

  it("forgets who leaves while waiting", async () => {
    const held = await hold();
    const leaving = new AbortController();
    await server.run(wait("gone"), { ...as(A), signal: leaving.signal });
    leaving.abort();
    await until(async () => (await ready()).waiting === 0);
    server.gate.open = true;
    await events(held);
    assert.ok(!server.gate.ran.includes("gone"));
  });
});

describe("a run and its readers", () => {
  let server: Server;
  before(async () => {
    server = await serve({ limits: { reconnect: 0.1 } });
  });
  after(() => server.stop());
  afterEach(() => {
    server.gate.open = false;
  });
  const stateAt = async (location: string): Promise<Json> => await (await fetch(server.url + location)).json();
  const begin = async (more: Parameters<Server["run"]>[1] = {}) => {
    const leaving = new AbortController();
    const response = await server.run(wait(crypto.randomUUID()), { ...more, signal: leaving.signal });
    await until(() => server.gate.running.size === 1);
    return { response, location: response.headers.get("location")!, leave: () => leaving.abort() };
  };

  it("stops when its reader leaves", async () => {
    const { location, leave } = await begin();
    leave();
    await until(() => server.gate.running.size === 0);
    await until(async () => (await stateAt(location)).state === "cancelled");
    assert.equal((await stateAt(location)).lastEvent.tag, "Cancelled");
  });

  it("goes on for an event-stream reader who comes back with Last-Event-ID", async () => {
    const { response, location, leave } = await begin({ headers: { accept: "text/event-stream" } });
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    let seen = "";
    while (!seen.includes('"progress"')) seen += (await reader.read()).value;
    const last = [...seen.matchAll(/^id: (\d+)$/gm)].at(-1)![1];
    leave();
    await reader.cancel().catch(() => {});
    const again = await fetch(`${server.url}${location}/events`, {
      headers: { accept: "text/event-stream", "last-event-id": last },
    });
    server.gate.open = true;
    const rest = await again.text();
    assert.equal(Number(/^id: (\d+)$/m.exec(rest)![1]) > Number(last), true);
    assert.match(rest, /"status":"result"/);
    assert.equal((await stateAt(location)).state, "done");
  });

  it("stops when an event-stream reader does not come back in time", async () => {
    const { location, leave } = await begin({ headers: { accept: "text/event-stream" } });
    leave();
    await until(async () => (await stateAt(location)).state === "cancelled");
  });

  it("goes on while any reader is left", async () => {
    const { location, leave } = await begin();
    const other = await fetch(`${server.url}${location}/events`);
    leave();
    server.gate.open = true;
    assert.equal((await events(other)).at(-1).status, "result");
  });

  it("is cancelled by DELETE, which answers when it has ended", async () => {
    const { response, location } = await begin();
    const answer = await fetch(server.url + location, { method: "DELETE" });
    assert.equal((await answer.json()).state, "cancelled");
    assert.equal(server.gate.running.size, 0);
    assert.equal((await events(response)).at(-1).tag, "Cancelled");
    assert.equal((await fetch(server.url + location, { method: "DELETE" })).status, 200);
  });

  it("is not held up by a reader who does not read", async () => {
    const { response, location } = await begin();
    server.gate.open = true;
    await until(async () => (await stateAt(location)).state === "done");
    assert.equal((await events(response)).at(-1).status, "result");
  });

  it("is the same run for the same idempotency key", async () => {
    const headers = { "idempotency-key": "k1" };
    const [first, second] = await Promise.all([
      server.run(wait("once"), { headers }),
      server.run(wait("once"), { headers }),
    ]);
    assert.equal(first.headers.get("location"), second.headers.get("location"));
    server.gate.open = true;
    assert.deepEqual(await events(first), await events(second));
    const later = await server.run(wait("once"), { headers });
    assert.equal(later.headers.get("location"), first.headers.get("location"));
    await events(later);
    assert.equal(server.gate.ran.filter((label) => label === "once").length, 1);
    const other = await server.run(wait("other"), { headers });
    assert.deepEqual([other.status, (await other.json()).type], [422, "urn:sau:problem:key-reused"]);
  });
});

describe("budgets and the end", () => {
  it("a run ends when its time is up", async () => {
    const server = await serve({ limits: { seconds: 0.2 } });
    const last = (await events(await server.run(wait("long")))).at(-1);
    assert.deepEqual([last.status, last.tag], ["error", "TimeBudget"]);
    assert.equal(server.gate.running.size, 0);
    await server.stop();
  });

  it("a run ends when it takes too much memory", async () => {
    const server = await serve({ limits: { memory: 2e8 } });
    const last = (await events(await server.run({ inline: one("say", { what: "fat", fat: 150 }) }))).at(-1);
    assert.deepEqual([last.status, last.tag], ["error", "MemoryBudget"]);
    await server.stop();
  });

  it("a server that drains takes nothing new and lets runs end", async () => {
    const server = await serve();
    const running = await server.run(wait("last"));
    await until(() => server.gate.running.size === 1);
    const drained = server.handler.drain();
    await until(async () => (await fetch(`${server.url}/ready`)).status === 503);
    const refused = await server.run(wait("late"));
    assert.deepEqual([refused.status, (await refused.json()).type], [503, "urn:sau:problem:draining"]);
    server.gate.open = true;
    assert.equal((await events(running)).at(-1).status, "result");
    await drained;
    await server.stop();
  });

  it("a server that drains stops what does not end in time", async () => {
    const server = await serve({ limits: { drain: 0.1 } });
    const running = await server.run(wait("endless"));
    await until(() => server.gate.running.size === 1);
    await server.handler.drain();
    assert.equal((await events(running)).at(-1).tag, "Stopped");
    await server.stop();
  });

  it("a run that a crash cut off is told as such", async () => {
    const first = await serve();
    const cut = await first.run(wait("cut"), { headers: { prefer: "respond-async" } });
    await until(() => first.gate.running.size === 1);
    const second = await serve({}, first.data);
    const found: Json = await (await fetch(second.url + cut.headers.get("location"))).json();
    assert.deepEqual([found.state, found.lastEvent.tag], ["failed", "Stopped"]);
    await second.stop();
    await first.stop();
  });
});

describe("the log of events", () => {
  it("stays small however much happens, and keeps the ends", async () => {
    const log = new EventLog();
    const progress = { status: "progress", name: "s", done: 1, total: 1, progress: 100, seconds: 0 } as const;
    log.append({ status: "note", message: "first" });
    for (let i = 0; i < 20_000; i++) log.append(progress);
    log.append({ status: "error", tag: "t", message: "m" });
    log.append(progress);
    const all = await Effect.runPromise(Stream.runCollect(log.after(0)));
    assert.ok(all.length <= 100, String(all.length));
    assert.deepEqual(all[0]?.event, { status: "note", message: "first" });
    assert.deepEqual(all.at(-1)?.event, { status: "error", tag: "t", message: "m" });
    assert.equal((await Effect.runPromise(Stream.runCollect(log.after(20_001)))).length, 1);
  });

  it("comes in the form that is preferred", () => {
    const cases: Array<[string | undefined, string | undefined]> = [
      [undefined, "application/x-ndjson"],
      ["*/*", "application/x-ndjson"],
      ["text/event-stream", "text/event-stream"],
      ["text/*;q=0.5, application/x-ndjson;q=0.4", "text/event-stream"],
      ["text/event-stream;q=0, */*", "application/x-ndjson"],
      ["application/json", undefined],
      ["image/png, text/html", undefined],
    ];
    for (const [accept, form] of cases) assert.equal(formatFor(accept), form, accept);
  });
});
