/** From the body of POST /run to a pipeline that may run here: bounded, without code, over allowed paths and steps only. */
import { Effect, Result, Schema, SchemaIssue } from "effect";
import { join } from "node:path";
import type { Pipeline } from "../pipeline/link.ts";
import { loadText } from "../pipeline/load.ts";
import { isCode } from "../pipeline/own_step.ts";
import { parseSource, showPath, type Source } from "../pipeline/source.ts";
import { isMapping } from "../pipeline/spec.ts";
import { listNames } from "../pipeline/suggest.ts";
import { isPipeline } from "../pipeline/expand.ts";
import { hashValue } from "../pipeline/hash.ts";
import { NAME } from "../pipeline/reference.ts";
import { SpecError } from "../steps/errors.ts";
import type { AnyStep } from "../steps/step.ts";
import { RunRequest, ScreenRequest } from "./api.ts";
import type { Hub, HubModel } from "./hub.ts";
import type { Offer } from "./offers.ts";
import { mistakesOf, Refusal } from "./problems.ts";
import type { Roots } from "./roots.ts";

/** What a request asks for. */
export interface Asked<R> {
  /** How the run is called. */
  readonly name: string;
  readonly pipeline: Pipeline<R>;
  /** Models to be fetched before it. */
  readonly models: ReadonlyArray<HubModel>;
  /** Equal for equal requests. */
  readonly hash: string;
}

/** Deepest nesting of a JSON body; deeper ones are for breaking parsers. */
const DEPTH = 64;

const tooDeep = (json: string): boolean => {
  let depth = 0;
  let quoted = false;
  for (let i = 0; i < json.length; i++) {
    const c = json[i];
    if (quoted) {
      if (c === "\\") i++;
      else if (c === '"') quoted = false;
    } else if (c === '"') quoted = true;
    else if (c === "{" || c === "[") {
      if (++depth > DEPTH) return true;
    } else if (c === "}" || c === "]") depth--;
  }
  return false;
};

const badRequest = (detail: string) => new Refusal({ kind: "bad-request", detail });

const describeIssue = SchemaIssue.makeFormatterStandardSchemaV1();

/** A body's JSON as a schema has it. */
const readJson = <S extends Schema.Struct<Schema.Struct.Fields> & { readonly DecodingServices: never }>(
  schema: S,
  body: string,
): Effect.Effect<S["Type"], Refusal> =>
  Effect.gen(function* () {
    if (tooDeep(body)) return yield* badRequest(`the JSON nests deeper than ${DEPTH} levels`);
    const value = yield* Effect.try({
      try: (): unknown => JSON.parse(body),
      catch: () => badRequest("the body is no JSON"),
    });
    const decoded = yield* Effect.result(
      Schema.decodeUnknownEffect(schema)(value, { errors: "all", onExcessProperty: "error" }),
    );
    if (Result.isSuccess(decoded)) return decoded.success;
    const [first] = describeIssue(decoded.failure.issue).issues;
    const path = (first.path ?? []).map((part) => typeof part === "object" ? part.key : part);
    return yield* badRequest(`${showPath(path) || "the body"}: ${first.message}`);
  });

/** The body of POST /screen as a request for the pipeline of that name. */
export const readScreenRequest = (type: string | undefined, body: string): Effect.Effect<RunRequest, Refusal> =>
  Effect.gen(function* () {
    if (type?.split(";")[0].trim().toLowerCase() !== "application/json") {
      return yield* new Refusal({
        kind: "unsupported-media-type",
        detail: "send application/json",
        headers: { "accept-post": "application/json" },
      });
    }
    const { prompts, params = {} } = yield* readJson(ScreenRequest, body);
    for (const own of ["texts", "prompts"]) {
      if (Object.hasOwn(params, own)) return yield* badRequest(`params.${own}: prompts go into \`prompts\` itself`);
    }
    return { pipeline: "screen", params: { ...params, texts: prompts, prompts: null } };
  });

/** The body by its media type: JSON is a request, YAML the pipeline itself. */
export const readRequest = (type: string | undefined, body: string): Effect.Effect<RunRequest, Refusal> =>
  Effect.gen(function* () {
    const media = type?.split(";")[0].trim().toLowerCase();
    if (media === "application/yaml" || media === "application/x-yaml") return { inline: body };
    if (media !== "application/json") {
      return yield* new Refusal({
        kind: "unsupported-media-type",
        detail: "send application/json, or a pipeline as application/yaml",
        headers: { "accept-post": "application/json, application/yaml" },
      });
    }
    const request = yield* readJson(RunRequest, body);
    if ((request.pipeline === undefined) === (request.inline === undefined)) {
      return yield* badRequest("give either `pipeline` (a name) or `inline` (a pipeline)");
    }
    return request;
  });

/** Where each `use` of a stranger's pipeline stands that names a file: there is none beside it. */
const usesOfFiles = (source: Source): Refusal | undefined => {
  const steps = isMapping(source.value) && isMapping(source.value.steps) ? source.value.steps : {};
  const mistakes = Object.entries(steps).flatMap(([id, step]) => {
    const use = isMapping(step) ? step.use : undefined;
    if (typeof use !== "string" || !isPipeline(use) || isCode(use)) return [];
    return [{
      code: "nested-path" as const,
      ...source.locate(["steps", id, "use"], "value"),
      message: "a pipeline that is sent cannot use a pipeline file",
      expected: "the name of a step",
    }];
  });
  return mistakes.length === 0 ? undefined : new Refusal({ kind: "pipeline", mistakes });
};

export const makeAsk = <R>(
  { steps, offers, roots, hub, data }: {
    readonly steps: ReadonlyArray<AnyStep<R>>;
    readonly offers: ReadonlyMap<string, Offer>;
    readonly roots: Roots;
    readonly hub: Hub;
    readonly data: string;
  },
) =>
/** `verbatim`: parameters that hold people's texts, in which `hf://` names no model. */
(request: RunRequest, verbatim: ReadonlySet<string> = new Set()): Effect.Effect<Asked<R>, Refusal> =>
  Effect.gen(function* () {
    const offer = request.pipeline === undefined ? undefined : offers.get(request.pipeline);
    if (request.pipeline !== undefined && offer === undefined) {
      return yield* new Refusal({
        kind: "not-found",
        detail: `there is no pipeline of that name here; there are ${listNames(offers.keys())}`,
      });
    }
    const { inline = "" } = request;
    const sent = offer?.text ?? (typeof inline === "string" ? inline : JSON.stringify(inline, null, 2));
    const models: HubModel[] = [];
    const localise = (text: string) =>
      Effect.map(hub.localise(text), (found) => {
        models.push(...found.models);
        return found.text;
      });
    // What the server's owner wrote into its own files is read as it stands.
    const text = offer === undefined ? yield* localise(sent) : sent;
    const overrides: string[] = [];
    for (const [name, value] of Object.entries(request.params ?? {})) {
      if (!NAME.test(name)) {
        return yield* badRequest(`params: "${name.slice(0, 40)}" cannot be the name of a parameter`);
      }
      const json = JSON.stringify(value);
      overrides.push(`${name}=${verbatim.has(name) ? json : yield* localise(json)}`);
    }
    const folder = offer?.folder ?? roots.first ?? join(data, "empty");
    const file = offer?.file ?? "inline.yaml";
    if (offer === undefined) {
      const source = parseSource(file, text);
      const refusal = "value" in source ? usesOfFiles(source) : undefined;
      if (refusal !== undefined) return yield* refusal;
    }
    const pipeline = yield* loadText(text, { steps, overrides, file, folder, allowCode: false }).pipe(
      Effect.mapError((error: SpecError) => new Refusal({ kind: "pipeline", mistakes: mistakesOf(error) })),
    );
    yield* roots.check(pipeline, offer?.trusted);
    const { pipeline: name, inline: own, params } = request;
    return {
      name: offer?.info.name ?? pipeline.name,
      pipeline,
      models,
      hash: hashValue({ name: name ?? null, inline: own ?? null, params: params ?? {} }),
    };
  });
export type Ask<R> = ReturnType<typeof makeAsk<R>>;
