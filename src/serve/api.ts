/**
 * The interface as data: what `/openapi.json` says, what the routes are made from, and what the typed client speaks.
 * It is the contract alone: nothing here knows how an answer comes about.
 */
import { Context, Schema } from "effect";
import {
  HttpApi,
  HttpApiEndpoint,
  HttpApiGroup,
  HttpApiMiddleware,
  HttpApiSchema,
  HttpApiSecurity,
  OpenApi,
} from "effect/http-api";
import type { RunEvent } from "../pipeline/events.ts";
import { VERSION } from "../pipeline/manifest.ts";
import { Verdict } from "../steps/errors.ts";
import { MistakeBody, problemSchemas } from "./problems.ts";

/** What POST /run takes: a pipeline by name or inline, and values for its parameters. */
export const RunRequest = Schema.Struct({
  pipeline: Schema.optionalKey(Schema.String).annotate({
    description: "Name of a pipeline that this server offers (GET /pipelines)",
  }),
  inline: Schema.optionalKey(
    Schema.Union([Schema.String, Schema.Record(Schema.String, Schema.Json)]).annotate({
      description: "A pipeline itself: YAML or JSON text, or its JSON value",
    }),
  ),
  params: Schema.optionalKey(Schema.Record(Schema.String, Schema.Json)).annotate({
    description:
      "Values for the pipeline's parameters. Models and files: paths under this server's roots, or hf:// ids",
  }),
}).annotate({ identifier: "RunRequest", description: "Either `pipeline` or `inline`" });
export type RunRequest = typeof RunRequest.Type;

/** Prompts of one request to POST /screen; a log is sent in pieces. */
const MOST_PROMPTS = 1024;

/** What POST /screen takes: prompts, and values for the other parameters of the pipeline `screen`. */
export const ScreenRequest = Schema.Struct({
  prompts: Schema.Array(Schema.String).check(Schema.isMinLength(1), Schema.isMaxLength(MOST_PROMPTS)).annotate({
    description: `Prompts to screen, 1 to ${MOST_PROMPTS}`,
  }),
  params: Schema.optionalKey(Schema.Record(Schema.String, Schema.Json)).annotate({
    description: "model, unet, text_encoder, harmless, false_positives and so on, as GET /pipelines lists them",
  }),
}).annotate({ identifier: "ScreenRequest" });
export type ScreenRequest = typeof ScreenRequest.Type;

/** A file that a run left. */
export const Artefact = Schema.Struct({
  name: Schema.String.annotate({ description: "Path in the result folder" }),
  sha256: Schema.String,
  bytes: Schema.Int,
  href: Schema.String.annotate({ description: "Where it is to be had: /artefacts/SHA256?name=NAME" }),
}).annotate({ identifier: "Artefact" });
export type Artefact = typeof Artefact.Type;

const place = { name: Schema.String, use: Schema.String, index: Schema.Int, count: Schema.Int };

/** An event of a run; the fields are those of the command line's --json. */
const Step = Schema.Union([
  Schema.Struct({ status: Schema.Literal("initiate"), ...place, reason: Schema.String }),
  Schema.Struct({
    status: Schema.Literal("progress"),
    name: Schema.String,
    done: Schema.Number,
    total: Schema.Number,
    progress: Schema.Number,
    seconds: Schema.Number,
    left: Schema.optionalKey(Schema.Number),
    note: Schema.optionalKey(Schema.String),
  }),
  Schema.Struct({ status: Schema.Literal("done"), ...place, seconds: Schema.Number, cached: Schema.Boolean }),
  Schema.Struct({ status: Schema.Literal("note"), name: Schema.optionalKey(Schema.String), message: Schema.String }),
  Schema.Struct({ status: Schema.Literal("ready"), seconds: Schema.Number }),
]);

/** The last event: what came of the run. `files` names what `artefacts` holds; no folder leaves the server. */
export const ResultEvent = Schema.Struct({
  status: Schema.Literal("result"),
  passed: Schema.NullOr(Schema.Boolean),
  verdict: Schema.NullOr(Verdict),
  out: Schema.Null,
  files: Schema.Array(Schema.String),
  artefacts: Schema.Array(Artefact),
  seconds: Schema.Number,
  command: Schema.String,
});
export const ErrorEvent = Schema.Struct({
  status: Schema.Literal("error"),
  tag: Schema.String.annotate({
    description: "Kind of failure: StepError, RuntimeUnavailable, Cancelled, TimeBudget, MemoryBudget, Stopped, …",
  }),
  message: Schema.String,
  problems: Schema.optionalKey(Schema.Array(MistakeBody)),
});
export const EndEvent = Schema.Union([ResultEvent, ErrorEvent]);
export type EndEvent = typeof EndEvent.Type;

// A field that the pipeline's events gain or lose is a compile error here.
type Same<A, B> = [A] extends [B] ? [B] extends [A] ? true : never : never;
const same: Same<typeof Step.Type, RunEvent> = true;
void same;

export const Event = Schema.Union([...Step.members, ...EndEvent.members]).annotate({ identifier: "Event" });

export const STATES = ["queued", "running", "done", "failed", "cancelled"] as const;

export const RunState = Schema.Struct({
  id: Schema.String,
  state: Schema.Literals(STATES),
  pipeline: Schema.String,
  created: Schema.String,
  ended: Schema.NullOr(Schema.String),
  /** The newest event and its id, with which a reader goes on (Last-Event-ID). */
  lastEventId: Schema.Int,
  lastEvent: Schema.NullOr(Event),
}).annotate({ identifier: "RunState" });
export type RunState = typeof RunState.Type;

const PipelineInfo = Schema.Struct({
  name: Schema.String,
  title: Schema.String,
  description: Schema.NullOr(Schema.String),
  params: Schema.Record(Schema.String, Schema.Json),
}).annotate({ identifier: "Pipeline" });
export type PipelineInfo = typeof PipelineInfo.Type;

/** Who asks: the token's name, or the one name of all who need none. */
export class Client extends Context.Service<Client, string>()("sau/serve/Client") {}

export class Authorization extends HttpApiMiddleware.Service<Authorization, { provides: Client }>()(
  "sau/serve/Authorization",
  { security: { bearer: HttpApiSecurity.bearer } },
) {}

const error = problemSchemas;
const Ok = Schema.Struct({ status: Schema.Literal("ok") });
const Ready = Schema.Struct({
  status: Schema.Literals(["ready", "draining"]),
  running: Schema.Int,
  waiting: Schema.Int,
});
const Id = { id: Schema.String };
const stream = HttpApiSchema.StreamNdjson({ schema: Event });

/** For all who look after the server: no token needed, nothing told but that it lives. */
const health = HttpApiGroup.make("health", { topLevel: true })
  .add(HttpApiEndpoint.get("ping", "/ping", { success: Ok, error }))
  .add(HttpApiEndpoint.get("ready", "/ready", { success: Ready, error }));

const runs = HttpApiGroup.make("runs", { topLevel: true })
  .add(HttpApiEndpoint.get("pipelines", "/pipelines", { success: Schema.Array(PipelineInfo), error }))
  .add(
    HttpApiEndpoint.post("run", "/run", {
      headers: {
        "idempotency-key": Schema.optionalKey(Schema.String),
        "last-event-id": Schema.optionalKey(Schema.String),
        prefer: Schema.optionalKey(Schema.String).annotate({
          description: "respond-async: 202 and Location at once; the run goes on without a reader",
        }),
      },
      payload: RunRequest,
      success: stream,
      error,
    }).annotate(
      OpenApi.Description,
      "Runs a pipeline and streams its events (NDJSON, or server-sent events by Accept). Leaving cancels it. A pipeline " +
        "itself may be sent as application/yaml too.",
    ),
  )
  .add(
    HttpApiEndpoint.post("screen", "/screen", {
      headers: {
        "idempotency-key": Schema.optionalKey(Schema.String),
        "last-event-id": Schema.optionalKey(Schema.String),
        prefer: Schema.optionalKey(Schema.String),
      },
      payload: ScreenRequest,
      success: stream,
      error,
    }).annotate(
      OpenApi.Description,
      "Screens prompts for a trigger: a run of the pipeline `screen`, told in the same events. Its artefact screen.json " +
        "holds score, p-value and suspected words of each prompt. What was calibrated once for a model is not done again.",
    ),
  )
  .add(HttpApiEndpoint.get("state", "/runs/:id", { params: Id, success: RunState, error }))
  .add(HttpApiEndpoint.delete("cancel", "/runs/:id", { params: Id, success: RunState, error }))
  .add(
    HttpApiEndpoint.get("events", "/runs/:id/events", {
      params: Id,
      headers: { "last-event-id": Schema.optionalKey(Schema.String) },
      success: stream,
      error,
    }).annotate(OpenApi.Description, "The events after Last-Event-ID (all, without it), to the end of the run."),
  )
  .add(
    HttpApiEndpoint.get("artefact", "/artefacts/:sha256", {
      params: { sha256: Schema.String },
      query: { name: Schema.optionalKey(Schema.String) },
      headers: { range: Schema.optionalKey(Schema.String) },
      success: HttpApiSchema.StreamUint8Array(),
      error,
    }),
  )
  .add(
    HttpApiEndpoint.get("metrics", "/metrics", {
      success: Schema.String.pipe(HttpApiSchema.asText({ contentType: "text/plain; version=0.0.4; charset=utf-8" })),
      error,
    }),
  )
  .middleware(Authorization);

/** Streams are to be had as server-sent events as well: the definition has room for one form only. */
// deno-lint-ignore no-explicit-any
const withEventStreams = (spec: Record<string, any>): Record<string, any> => {
  for (const operation of [spec.paths["/run"].post, spec.paths["/screen"].post, spec.paths["/runs/{id}/events"].get]) {
    const { content } = operation.responses["200"];
    content["text/event-stream"] = { schema: { type: "string" } };
    delete content["application/x-ndjson"]["x-effect-stream"];
  }
  spec.paths["/run"].post.requestBody.content["application/yaml"] = { schema: { type: "string" } };
  delete spec.paths["/artefacts/{sha256}"].get.responses["200"].content["application/octet-stream"]["x-effect-stream"];
  return spec;
};

export const Api = HttpApi.make("sau").add(health).add(runs).annotateMerge(OpenApi.annotations({
  title: "sau",
  version: VERSION,
  description: "Finds, removes and proves removed a backdoor in a Stable Diffusion checkpoint.",
  license: { name: "Apache-2.0" },
  transform: withEventStreams,
}));
