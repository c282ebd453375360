import fc from "fast-check";
import assert from "node:assert/strict";
import process from "node:process";
import { after, before, describe, it } from "node:test";
import { type Json, one, serve, type Server } from "./support.ts";

const TOKEN = "a token of sixteen letters";
/** Requests; SAU_FUZZ asks for as many as the parsers get, of which a hundredth is a night's work here. */
const REQUESTS = Math.max(600, Math.ceil(Number(process.env.SAU_FUZZ ?? 0) / 100));

const text = fc.oneof(
  fc.string(),
  fc.string({ unit: "binary", maxLength: 20 }),
  fc.constantFrom("..", "%00", "%2e%2e%2f", "a/b", "\\"),
);
const word = fc.constantFrom("say", "wait", "read", "poison-badt2i", "./x.yaml", "./x.ts#y", "__proto__", "");
const reference = fc.constantFrom(
  "${{ params.x }}",
  "${{ steps.it.words }}",
  "${{",
  "${{ item }}",
  "/etc/passwd",
  "hf://a/b",
  "..",
);
const value = fc.oneof(fc.jsonValue({ maxDepth: 3 }), reference, text);
const pipeline = fc.record({
  sau: fc.oneof({ weight: 5, arbitrary: fc.constant(1) }, value),
  name: value,
  params: fc.oneof(fc.dictionary(fc.constantFrom("x", "y", "__proto__", "a.b"), value), value),
  steps: fc.oneof(
    {
      weight: 5,
      arbitrary: fc.dictionary(
        fc.constantFrom("it", "two", "__proto__", "a b"),
        fc.record({
          use: word,
          if: value,
          matrix: value,
          foreach: value,
          with: fc.dictionary(fc.constantFrom("what", "file", "label", "words"), value),
        }, { requiredKeys: ["use"] }),
      ),
    },
    value,
  ),
  outputs: value,
}, { requiredKeys: ["sau", "steps"] });

describe("every endpoint of /openapi.json", () => {
  let server: Server;
  let spec: Json;
  before(async () => {
    server = await serve({ tokens: [TOKEN], limits: { seconds: 0.2 } });
    spec = await (await fetch(`${server.url}/openapi.json`)).json();
    server.gate.open = true;
  });
  after(() => server.stop());

  it("answers anything that the description allows, or does not, without a 5xx", { timeout: 3_600_000 }, async () => {
    const operations = Object.entries<Json>(spec.paths).flatMap(([path, item]) =>
      Object.keys(item).map((method) => ({ path, method, operation: item[method] }))
    );
    // The identifiers of something real, so that the fuzzing gets past "there is nothing here".
    const own = { authorization: `Bearer ${TOKEN}` };
    const response = await server.run({ inline: one("say", { what: "x" }) }, { headers: own });
    const id = response.headers.get("location")!.slice("/runs/".length);
    const sha256 = /"sha256":"(\w+)"/.exec(await response.text())![1];
    const body = fc.oneof(
      {
        weight: 4,
        arbitrary: fc.record({ inline: pipeline }, { requiredKeys: ["inline"] }).map((b) => JSON.stringify(b)),
      },
      fc.record({ inline: text, pipeline: text, params: value, [`more`]: value }, { requiredKeys: [] }).map((b) =>
        JSON.stringify(b)
      ),
      fc.json(),
      text,
      fc.uint8Array({ maxLength: 50 }),
    );
    const call = fc.record({
      operation: fc.constantFrom(...operations),
      method: fc.oneof({ weight: 6, arbitrary: fc.constant(null) }, fc.constantFrom("PUT", "PATCH", "OPTIONS", "HEAD")),
      param: fc.oneof(text, fc.constantFrom(id, sha256)),
      query: fc.dictionary(fc.constantFrom("name", "x"), text),
      headers: fc.dictionary(
        fc.constantFrom("accept", "range", "if-range", "if-none-match", "last-event-id", "idempotency-key", "prefer"),
        fc.oneof(
          fc.string({ unit: "grapheme-ascii", maxLength: 20 }).map((s) => s.trim()),
          fc.constantFrom(
            "bytes=0-",
            "bytes=-1",
            "bytes=9-1",
            "bytes=0-0,2-3",
            "0",
            "-1",
            "respond-async",
            "*/*",
            `"${sha256}"`,
          ),
        ),
      ),
      type: fc.constantFrom(
        "application/json",
        "application/yaml",
        "text/plain",
        "multipart/form-data",
        "",
        "a/b; c=d",
      ),
      body,
      token: fc.oneof({ weight: 8, arbitrary: fc.constant(TOKEN) }, text.filter((t) => /^[\x20-\x7e]*$/.test(t))),
    });
    const check = fc.asyncProperty(call, async (c) => {
      const { path, method, operation } = c.operation;
      const query = new URLSearchParams(c.query).toString();
      const target = `${path.replace(/\{\w+\}/g, encodeURIComponent(c.param.toWellFormed()))}?${query}`;
      const used = (c.method ?? method).toUpperCase();
      const hasBody = !["GET", "HEAD"].includes(used);
      const answer = await fetch(server.url + target, {
        method: used,
        headers: { ...c.headers, authorization: `Bearer ${c.token.trim()}`, "content-type": c.type },
        body: hasBody ? c.body as BodyInit : null,
      });
      const said = await answer.text();
      assert.ok(answer.status < 500, `${used} ${target}: ${answer.status} ${said}`);
      if (answer.status >= 400 && used !== "HEAD") {
        assert.equal(answer.headers.get("content-type"), "application/problem+json", `${used} ${target} ${said}`);
        const known = c.method === null ? operation.responses[String(answer.status)] : true;
        assert.ok(known, `${used} ${path} answers ${answer.status}, which its description does not name`);
        assert.ok(!said.includes(server.data));
      }
    });
    await fc.assert(check, { numRuns: REQUESTS, seed: 1, endOnFailure: true });
    assert.equal((await fetch(`${server.url}/ping`)).status, 200);
  });
});
