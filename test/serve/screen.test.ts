/** POST /screen: a run of the pipeline `screen` over prompts that came in the body, whatever they hold. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { Effect, Exit, Schema, Scope, Stream } from "effect";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { noServices } from "../../src/pipeline/environment.ts";
import { connect } from "../../src/serve/client.ts";
import { makeHandler } from "../../src/serve/handler.ts";
import { listen } from "../../src/serve/listen.ts";
import { Port } from "../../src/steps/port.ts";
import { Step } from "../../src/steps/step.ts";
import { events } from "./support.ts";

const heard = Port.json("heard", "texts", Schema.decodeUnknownSync(Schema.Array(Schema.String)));
const hear = Step.make("hear", {
  version: 1,
  description: "Says what it was told.",
  settings: Schema.Struct({
    texts: Schema.Array(Schema.String),
    prompts: Schema.NullOr(Schema.String),
    rate: Schema.Number,
  }),
  inputs: {},
  outputs: { heard },
  run: (_, { texts, rate }) => Effect.succeed({ heard: [...texts, String(rate)] }),
});

const PIPELINE = `sau: 1
name: Screen
params: { texts: { type: array, default: [] }, prompts: null, rate: 0.5 }
steps:
  it:
    use: hear
    with: { texts: "\${{ params.texts }}", prompts: "\${{ params.prompts }}", rate: "\${{ params.rate }}" }
outputs:
  heard: \${{ steps.it.heard }}
`;

describe("POST /screen", () => {
  const folder = mkdtempSync(join(tmpdir(), "sau-screen-"));
  const pipelines = join(folder, "pipelines");
  mkdirSync(pipelines);
  writeFileSync(join(pipelines, "screen.yaml"), PIPELINE);
  const handler = makeHandler(
    { steps: [hear], environment: Effect.succeed(noServices()) },
    { data: join(folder, "data"), pipelines: [pipelines] },
  );
  const scope = Scope.makeUnsafe();
  let url = "";
  before(async () => {
    url = await Effect.runPromise(Scope.provide(listen(handler, { host: "127.0.0.1", port: 0 }), scope));
  });
  after(async () => {
    await handler.dispose();
    await Effect.runPromise(Scope.close(scope, Exit.void));
    rmSync(folder, { recursive: true, force: true });
  });
  const post = (body: unknown) =>
    fetch(`${url}/screen`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });

  it("screens the very prompts of the body: signs that hide, paths, model ids, expressions", async () => {
    const prompts = [
      "\u200b a cat",
      "hf://a/b is no model here",
      "/etc/passwd on a table",
      "${{ params.rate }}",
      'a "dog"',
      "",
    ];
    const all = await events(await post({ prompts, params: { rate: 0.25 } }));
    const end = all.at(-1);
    assert.equal(end.status, "result", JSON.stringify(end));
    const { href } = end.artefacts.find(({ name }: { name: string }) => name === "heard.json");
    assert.deepEqual(await (await fetch(`${url}${href}`)).json(), [...prompts, "0.25"]);
  });

  it("is what the typed client speaks", async () => {
    const states = await Effect.runPromise(Effect.gen(function* () {
      const sau = yield* connect(url);
      const stream = yield* sau.screen({ headers: {}, payload: { prompts: ["a cat"] } });
      return yield* Stream.runCollect(Stream.map(stream, ({ status }) => status));
    }));
    assert.equal([...states].at(-1), "result");
  });

  it("says what is wrong with a body", async () => {
    const wrong = async (body: unknown) => {
      const response = await post(body);
      assert.equal(response.status, 400);
      return (await response.json()).detail;
    };
    assert.match(await wrong({ prompts: [] }), /prompts/);
    assert.match(await wrong({ prompts: ["a cat"], params: { texts: ["x"] } }), /params\.texts/);
    assert.match(await wrong({ prompts: "a cat" }), /prompts/);
    assert.equal((await fetch(`${url}/screen`, { method: "POST", body: "a cat" })).status, 415);
  });
});
