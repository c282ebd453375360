import { Ajv2020 } from "ajv/dist/2020.js";
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { events, type Json, one, serve, type Server } from "./support.ts";

describe("/openapi.json", () => {
  let server: Server;
  let spec: Json;
  let ajv: Ajv2020;
  before(async () => {
    server = await serve();
    spec = await (await fetch(`${server.url}/openapi.json`)).json();
    // The document as one schema, so that references within it resolve; formats are the annotations that they are.
    ajv = new Ajv2020({ strict: false, validateFormats: false }).addSchema({ $id: "spec", ...spec });
  });
  after(() => server.stop());

  const operations = () =>
    Object.entries<Json>(spec.paths).flatMap(([path, item]) =>
      Object.entries<Json>(item).map(([method, operation]) => ({ path, method, operation }))
    );
  const pointer = (...keys: string[]) =>
    `spec#/${keys.map((key) => encodeURIComponent(key.replaceAll("~", "~0").replaceAll("/", "~1"))).join("/")}`;

  it("is OpenAPI 3.1: each operation complete, with an id of its own", () => {
    assert.match(spec.openapi, /^3\.1\.\d+$/);
    assert.ok(spec.info.title && spec.info.version);
    const all = operations();
    assert.deepEqual(
      all.map(({ method, path }) => `${method.toUpperCase()} ${path}`).sort(),
      [
        "DELETE /runs/{id}",
        "GET /artefacts/{sha256}",
        "GET /metrics",
        "GET /ping",
        "GET /pipelines",
        "GET /ready",
        "GET /runs/{id}",
        "GET /runs/{id}/events",
        "POST /run",
        "POST /screen",
      ],
    );
    assert.equal(new Set(all.map(({ operation }) => operation.operationId)).size, all.length);
    for (const { path, operation } of all) {
      const named = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
      const declared = operation.parameters.filter((p: Json) => p.in === "path");
      assert.deepEqual(declared.map((p: Json) => p.name), named, path);
      assert.ok(declared.every((p: Json) => p.required === true));
      assert.ok(Object.values<Json>(operation.responses).every(({ description }) => typeof description === "string"));
      assert.ok(operation.responses["200"], path);
      for (const [status, { content }] of Object.entries<Json>(operation.responses)) {
        if (Number(status) >= 400) {
          assert.deepEqual(Object.keys(content), ["application/problem+json"], `${path} ${status}`);
        }
      }
      for (const requirement of operation.security) {
        for (const name of Object.keys(requirement)) assert.equal(spec.components.securitySchemes[name].type, "http");
      }
    }
    assert.deepEqual(spec.paths["/run"].post.security, [{ bearer: [] }]);
    assert.deepEqual(spec.paths["/ping"].get.security, []);
  });

  it("holds JSON Schemas whose references lead somewhere", () => {
    for (const name of Object.keys(spec.components.schemas)) {
      ajv.compile({ $ref: pointer("components", "schemas", name) });
    }
    for (const { path, method, operation } of operations()) {
      for (const [status, { content = {} }] of Object.entries<Json>(operation.responses)) {
        for (const media of Object.keys(content)) {
          ajv.compile({ $ref: pointer("paths", path, method, "responses", status, "content", media, "schema") });
        }
      }
    }
  });

  it("describes what is answered", async () => {
    const fits = (name: string, value: unknown) => {
      const validate = ajv.compile({ $ref: pointer("components", "schemas", name) });
      assert.ok(validate(value), JSON.stringify([value, validate.errors]));
    };
    const response = await server.run({ inline: one("say", { what: "x" }) });
    for (const event of await events(response)) fits("Event", event);
    for (const event of await events(await server.run({ inline: one("read", { file: "inside.txt" }) }))) {
      fits("Event", event);
    }
    fits("RunState", await (await fetch(server.url + response.headers.get("location"))).json());
    fits("Problem404", await (await fetch(`${server.url}/runs/x`)).json());
    fits("Problem422", await (await server.run({ inline: "sau: 1" })).json());
    fits("RunRequest", { pipeline: "x", params: { a: [1, null, "b"] } });
  });
});
