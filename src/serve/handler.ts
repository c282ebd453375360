/**
 * `sau` behind HTTP: one function from Request to Response, the same under `deno serve`, Bun and any server of fetch handlers.
 *
 *     const { fetch, dispose } = createHandler({ data: "/var/lib/sau", pipelines: ["pipelines"], roots: ["/models"] });
 *     export default { fetch };
 */
import { Context, Effect, Exit, Layer, Redacted, Scope, Stream } from "effect";
import { HttpEffect, HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http";
import { HttpApiBuilder } from "effect/http-api";
import { mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { Shared, SharedFiles } from "../diffusion/shared.ts";
import { type Cache, openCache } from "../pipeline/cache.ts";
import { deviceEnvironment } from "../pipeline/device.ts";
import type { Environment } from "../pipeline/environment.ts";
import type { RunResult } from "../pipeline/run.ts";
import { renderReport } from "../report/report.ts";
import type { Device, Precision, Usage } from "../runtime/mod.ts";
import { builtinSteps } from "../steps/registry.ts";
import type { AnyStep } from "../steps/step.ts";
import { type AccessOptions, makeAccess } from "./access.ts";
import { Api, Authorization, Client } from "./api.ts";
import { makeArtefacts } from "./artefacts.ts";
import { makeAsk, readRequest, readScreenRequest } from "./ask.ts";
import { formatFor, FORMATS } from "./events.ts";
import { type HubOptions, makeHub } from "./hub.ts";
import { DEFAULT_LIMITS, type Limits } from "./limits.ts";
import { makeMeters } from "./meters.ts";
import { readOffers } from "./offers.ts";
import { PAGE_PATHS, pageRoutes } from "./page.ts";
import { answering, onlyProblems, Refusal } from "./problems.ts";
import { makeQueue } from "./queue.ts";
import { makeRoots } from "./roots.ts";
import { makeRuns, type Run, stateOf } from "./runs.ts";

/** What a server is made of besides its steps and its device. */
export interface ServerOptions extends AccessOptions {
  /** Folder of the server's own: artefacts, records of runs, fetched models. */
  readonly data: string;
  /** Folders of pipeline files that may be run by name. They are the owner's: paths in them are trusted. */
  readonly pipelines?: ReadonlyArray<string>;
  /** Folders that a request may name models and other files in. Relative paths start at the first. */
  readonly roots?: ReadonlyArray<string>;
  /** Models to be fetched by id; none without. */
  readonly hub?: HubOptions;
  readonly limits?: Partial<Limits>;
  /** Finished steps; by default in the data folder. */
  readonly cache?: Cache;
}

/** The steps, and what they compute on. */
export interface Engine<R> {
  readonly steps: ReadonlyArray<AnyStep<R>>;
  readonly environment: Effect.Effect<Environment<R>, never, Scope.Scope>;
  /** What is alive on the device; nothing before it is open. */
  readonly usage?: () => Usage;
  readonly renderReport?: (run: RunResult<R>) => string;
}

export interface Handler {
  readonly fetch: (request: Request) => Promise<Response>;
  /** Takes no new run, gives those under way the time to end, stops what is left. */
  readonly drain: () => Promise<void>;
  /** Stops everything and closes the device. */
  readonly dispose: () => Promise<void>;
}

const NOTHING: Usage = { sessions: 0, tensors: 0, bytes: 0 };

/** The body as text, no longer than it may be however long it says it is. */
const boundedBody = (request: HttpServerRequest.HttpServerRequest, most: number): Effect.Effect<string, Refusal> => {
  const tooLarge = new Refusal({ kind: "body-too-large", detail: `a request may have ${most} bytes` });
  if (Number(request.headers["content-length"] ?? 0) > most) return Effect.fail(tooLarge);
  const parts: Uint8Array[] = [];
  let bytes = 0;
  return request.stream.pipe(
    Stream.mapError(() => new Refusal({ kind: "bad-request", detail: "the body was cut off" })),
    Stream.runForEach((part) => {
      bytes += part.length;
      parts.push(part);
      return bytes > most ? Effect.fail(tooLarge) : Effect.void;
    }),
    Effect.andThen(Effect.try({
      try: () => new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(parts)),
      catch: () => new Refusal({ kind: "bad-request", detail: "the body is no UTF-8 text" }),
    })),
  );
};

/** Visible ASCII, as the draft of the header field has it. */
const KEY = /^[\x21-\x7e]{1,255}$/;

const eventId = (header: string | undefined): Effect.Effect<number, Refusal> =>
  header === undefined || header === ""
    ? Effect.succeed(0)
    : /^\d{1,15}$/.test(header)
    ? Effect.succeed(Number(header))
    : Effect.fail(new Refusal({ kind: "bad-request", detail: "Last-Event-ID is no id of an event" }));

const methodsAt = (path: string): string[] => {
  const found: string[] = [];
  for (const group of Object.values(Api.groups)) {
    for (const endpoint of Object.values(group.endpoints)) {
      if (new RegExp(`^${endpoint.path.replace(/:[a-z0-9]+/g, "[^/]+")}$`).test(path)) found.push(endpoint.method);
    }
  }
  if ([...PAGE_PATHS, "/openapi.json"].includes(path)) found.push("GET");
  return found.includes("GET") ? [...found, "HEAD"] : found;
};

/** A handler over any steps and device. `createHandler` is this with the built-in ones. */
export const makeHandler = <R>(engine: Engine<R>, options: ServerOptions): Handler => {
  const limits: Limits = { ...DEFAULT_LIMITS, ...options.limits };
  const data = resolve(options.data);
  const access = makeAccess(options);
  const usage = engine.usage ?? (() => NOTHING);
  const scope = Scope.makeUnsafe();

  const parts = Effect.runPromise(
    Effect.gen(function* () {
      const hubFolder = join(data, "hub");
      yield* Effect.promise(() => mkdir(hubFolder, { recursive: true }));
      const meters = makeMeters();
      const roots = makeRoots([...(options.roots ?? []).map((folder) => resolve(folder)), hubFolder]);
      const hub = makeHub(hubFolder, options.hub ?? { allow: [] });
      const offers = yield* Effect.promise(() =>
        readOffers(options.pipelines ?? [], new Set(engine.steps.map(({ name }) => name)))
      );
      const artefacts = makeArtefacts(join(data, "artefacts"), limits.artefacts);
      const runs = yield* makeRuns({
        data,
        limits,
        queue: makeQueue(limits),
        environment: yield* engine.environment,
        cache: options.cache ?? openCache(join(data, "cache")),
        artefacts,
        hub,
        held: () => usage().bytes,
        onEnd: meters.runEnded,
        ...(engine.renderReport === undefined ? {} : { renderReport: engine.renderReport }),
      });
      const ask = makeAsk({ steps: engine.steps, offers, roots, hub, data });
      return { meters, offers, artefacts, runs, ask };
    }).pipe(Scope.provide(scope)),
  );

  const routes = Layer.unwrap(Effect.map(Effect.promise(() => parts), ({ meters, offers, artefacts, runs, ask }) => {
    /** A run's events in the form that is asked for. */
    const events = (run: Run, request: HttpServerRequest.HttpServerRequest, after: number) => {
      const format = formatFor(request.headers.accept);
      if (format === undefined) {
        return Effect.fail(
          new Refusal({ kind: "not-acceptable", detail: `events come as ${Object.keys(FORMATS).join(" or ")}` }),
        );
      }
      const patience = format === "text/event-stream" ? limits.reconnect : 0;
      return Effect.succeed(HttpServerResponse.stream(
        runs.read(run, after, patience).pipe(Stream.map(FORMATS[format]), Stream.encodeText),
        {
          contentType: format,
          headers: {
            location: `/runs/${run.record.id}`,
            "cache-control": "no-store",
            // Proxies that gather an answer before they pass it on would hold back what is happening.
            "x-accel-buffering": "no",
          },
        },
      ));
    };

    /** Begins what a body asks for, and streams its events, or answers at once where the client will not wait. */
    const begin = (
      request: HttpServerRequest.HttpServerRequest,
      read: typeof readRequest,
      verbatim?: ReadonlySet<string>,
    ) =>
      answering(Effect.gen(function* () {
        const client = yield* Client;
        const { headers } = request;
        if (formatFor(headers.accept) === undefined) {
          return yield* new Refusal({
            kind: "not-acceptable",
            detail: `events come as ${Object.keys(FORMATS).join(" or ")}`,
          });
        }
        const key = headers["idempotency-key"];
        if (key !== undefined && !KEY.test(key)) {
          return yield* new Refusal({ kind: "bad-request", detail: "Idempotency-Key has 1 to 255 visible characters" });
        }
        const after = yield* eventId(headers["last-event-id"]);
        const body = yield* boundedBody(request, limits.body);
        const asked = yield* ask(yield* read(headers["content-type"], body), verbatim);
        const detached = /(^|,)\s*respond-async\s*($|[,;])/i.test(headers.prefer ?? "");
        const { run } = yield* runs.start(client, asked, { key: key ?? null, detached });
        if (!detached) return yield* events(run, request, after);
        return HttpServerResponse.jsonUnsafe(stateOf(run), {
          status: 202,
          headers: { location: `/runs/${run.record.id}`, "preference-applied": "respond-async" },
        });
      }));

    const health = HttpApiBuilder.group(Api, "health", (handlers) =>
      handlers
        .handle("ping", () => Effect.succeed({ status: "ok" as const }))
        .handleRaw("ready", () =>
          Effect.sync(() => {
            const { waiting, running } = runs.counts();
            const draining = runs.isDraining();
            return HttpServerResponse.jsonUnsafe({ status: draining ? "draining" : "ready", running, waiting }, {
              status: draining ? 503 : 200,
            });
          })));

    const work = HttpApiBuilder.group(Api, "runs", (handlers) =>
      handlers
        .handle("pipelines", () => Effect.succeed([...offers.values()].map(({ info }) => info)))
        .handleRaw("run", ({ request }) => begin(request, readRequest))
        .handleRaw("screen", ({ request }) => begin(request, readScreenRequest, new Set(["texts"])))
        .handleRaw("state", ({ params }) =>
          answering(Effect.gen(function* () {
            const run = yield* runs.get(yield* Client, params.id);
            return HttpServerResponse.jsonUnsafe(stateOf(run), { headers: { "cache-control": "no-store" } });
          })))
        .handleRaw("cancel", ({ params }) =>
          answering(Effect.gen(function* () {
            const run = yield* runs.get(yield* Client, params.id);
            yield* runs.cancel(run);
            return HttpServerResponse.jsonUnsafe(stateOf(run));
          })))
        .handleRaw("events", ({ request, params, headers }) =>
          answering(Effect.gen(function* () {
            const run = yield* runs.get(yield* Client, params.id);
            return yield* events(run, request, yield* eventId(headers["last-event-id"]));
          })))
        .handleRaw("artefact", ({ request, params, query }) =>
          answering(artefacts.serve(params.sha256, {
            name: query.name,
            range: request.headers.range,
            ifRange: request.headers["if-range"],
            ifNoneMatch: request.headers["if-none-match"],
          })))
        .handle("metrics", () => Effect.suspend(() => meters.text({ ...runs.counts(), usage: usage() }))));

    const authorization = Layer.succeed(
      Authorization,
      Authorization.of({
        bearer: (app, { credential }) =>
          Effect.matchEffect(access.client(Redacted.value(credential)), {
            onFailure: (refusal) => Effect.succeed(refusal.response),
            onSuccess: (client) => Effect.provideService(app, Client, client),
          }),
      }),
    );

    return Layer.mergeAll(HttpApiBuilder.layer(Api, { openapiPath: "/openapi.json" }), pageRoutes).pipe(
      Layer.provide([health, work]),
      Layer.provide(authorization),
      Layer.provide(HttpServer.layerServices),
    );
  }));

  /** Around every route: who may ask, every error as problem details, 405 where only the method is wrong. */
  const around = <E, Q>(app: Effect.Effect<HttpServerResponse.HttpServerResponse, E, Q>) =>
    Effect.gen(function* () {
      const { meters } = yield* Effect.promise(() => parts);
      const request = yield* HttpServerRequest.HttpServerRequest;
      const response = yield* onlyProblems(answering(Effect.andThen(access.guard(request), app)));
      yield* meters.answered(response.status);
      const path = request.url.split("?")[0];
      const methods = response.status === 404 ? methodsAt(path) : [];
      return methods.length === 0 || methods.includes(request.method) ? response : new Refusal({
        kind: "method-not-allowed",
        detail: `${path} takes ${methods.join(", ")}`,
        headers: { allow: methods.join(", ") },
      }).response;
    });

  const { handler, dispose } = HttpEffect.toWebHandlerLayerWith(Layer.provideMerge(routes, HttpRouter.layer), {
    toHandler: (context) => Effect.succeed(around(Context.get(context, HttpRouter.HttpRouter).asHttpEffect())),
  });

  let ended: Promise<void> | undefined;
  return {
    fetch: (request) => handler(request),
    drain: async () => Effect.runPromise((await parts).runs.drain),
    dispose: () =>
      ended ??= (async () => {
        await dispose();
        await Effect.runPromise(Scope.close(scope, Exit.void));
      })(),
  };
};

export interface HandlerOptions extends ServerOptions {
  /** What computes. Default: the first that works. */
  readonly device?: Device;
  /** In which precision pictures are drawn; `auto` unless told. */
  readonly precision?: Precision;
  /** Whether requests may use the steps that make backdoors. They may not unless told. */
  readonly poison?: boolean;
}

/** The built-in steps behind HTTP, on the first device that works (or the one that is named). */
export const createHandler = (
  { device = "auto", precision = "auto", poison = false, ...options }: HandlerOptions,
): Handler => {
  let usage = (): Usage => NOTHING;
  const shared = new SharedFiles(options.limits?.weights ?? DEFAULT_LIMITS.weights);
  const steps = builtinSteps.filter(({ name }) => poison || !name.startsWith("poison"));
  return makeHandler({
    steps,
    renderReport,
    usage: () => usage(),
    // Weights are read once, however many runs use them.
    environment: Effect.map(
      deviceEnvironment(device, { precision, onOpen: (runtime) => void (usage = runtime.usage) }),
      (environment) => ({
        ...environment,
        provide: (program) => environment.provide(Effect.provideService(program, Shared, shared)),
      }),
    ),
  }, options);
};
