/**
 * Every refusal as problem details (RFC 9457): `type` is a URN that stays the same from version to version, `detail` says
 * what to do. Nothing about the machine leaves with them: paths lose their folders, stacks are never shown.
 */
import { Cause, Data, Effect, Predicate, Schema } from "effect";
import { HttpServerError, HttpServerResponse, ProblemDetails } from "effect/http";
import { HttpApiSchema } from "effect/http-api";
import { explain, Problem as Mistake, SpecError } from "../steps/errors.ts";

/** A mistake in a pipeline as an answer carries it: its code is explained in docs/errors. */
export const MistakeBody = Schema.Struct({
  code: Mistake.fields.code,
  /** Place in the text that was sent, from 1; 0 where it came as a value, whose path `at` then names. */
  line: Schema.Number,
  column: Schema.Number,
  at: Schema.optionalKey(Schema.String),
  message: Schema.String,
  expected: Schema.optionalKey(Schema.String),
  hint: Schema.optionalKey(Schema.String),
});
export type MistakeBody = typeof MistakeBody.Type;

/** What stands behind each `type`: status, and the title that goes with it. */
const KINDS = {
  "bad-request": [400, "The request cannot be understood"],
  "unauthorized": [401, "A valid bearer token is needed"],
  "forbidden": [403, "This request comes from where none is taken"],
  "not-found": [404, "There is nothing here"],
  "method-not-allowed": [405, "This method does not go here"],
  "not-acceptable": [406, "No form of the answer suits the Accept header"],
  "body-too-large": [413, "The request is too large"],
  "unsupported-media-type": [415, "The body is in a form that is not read"],
  "range-not-satisfiable": [416, "The range lies outside of the artefact"],
  "pipeline": [422, "The pipeline has mistakes"],
  "outside-roots": [422, "A path leads out of the folders that may be used"],
  "model-not-allowed": [422, "This model may not be fetched"],
  "key-reused": [422, "The idempotency key belongs to another request"],
  "queue-full": [429, "Too many runs are waiting"],
  "internal": [500, "Something went wrong here"],
  "draining": [503, "The server is stopping"],
} as const;
export type Kind = keyof typeof KINDS;

const body = {
  type: Schema.String,
  title: Schema.String,
  detail: Schema.optionalKey(Schema.String),
  mistakes: Schema.optionalKey(Schema.Array(MistakeBody)),
};

/** Schemas of the answers, one a status, for the definition of the API. */
export const problemSchemas = [...new Set(Object.values(KINDS).map(([status]) => status))].map((status) =>
  Schema.Struct({ ...body, status: Schema.Literal(status) }).annotate({ identifier: `Problem${status}` }).pipe(
    HttpApiSchema.status(status),
    HttpApiSchema.asJson({ contentType: ProblemDetails.contentType }),
  )
);

/** A request that is turned down, or a run that cannot go on. */
export class Refusal extends Data.TaggedError("Refusal")<{
  readonly kind: Kind;
  readonly detail?: string;
  readonly mistakes?: ReadonlyArray<MistakeBody>;
  readonly headers?: Readonly<Record<string, string>>;
}> {
  override get message(): string {
    return this.detail ?? KINDS[this.kind][1];
  }
  get status(): number {
    return KINDS[this.kind][0];
  }
  get response(): HttpServerResponse.HttpServerResponse {
    const { kind, detail, mistakes, headers = {} } = this;
    const [status, title] = KINDS[kind];
    return ProblemDetails.toResponse({
      type: `urn:sau:problem:${kind}`,
      title,
      status,
      ...(detail === undefined ? {} : { detail: withoutPaths(detail) }),
      ...(mistakes === undefined ? {} : { mistakes }),
    }).pipe(HttpServerResponse.setHeaders(headers));
  }
}

/** A text whose absolute paths have lost their folders, as only the machine's owner should know them. */
export const withoutPaths = (text: string): string =>
  text.replace(
    /(?<![\w:/.~-])(?:file:\/\/)?(?:\/|[A-Za-z]:\\)(?:[^\s/\\:'"`,;()<>]+[/\\])+([^\s/\\:'"`,;()<>]*)/g,
    "…/$1",
  );

/** A value all of whose texts have lost their folders. */
export const strippedOfPaths = (value: unknown): unknown => {
  if (typeof value === "string") return withoutPaths(value);
  if (Array.isArray(value)) return value.map(strippedOfPaths);
  if (!Predicate.isObject(value)) return value;
  const stripped: Record<string, unknown> = {};
  for (const [key, inner] of Object.entries(value)) {
    const bare = withoutPaths(key);
    // Two paths may end alike; none of what they stand for is to be lost.
    let name = bare;
    for (let n = 2; Object.hasOwn(stripped, name); n++) name = `${bare} (${n})`;
    stripped[name] = strippedOfPaths(inner);
  }
  return stripped;
};

/** The mistakes of a pipeline, each at its place: in the text, or at the path of the value that was sent. */
export const mistakesOf = (error: SpecError): MistakeBody[] =>
  error.problems.map(({ code, file, line, column, message, expected, hint }) => {
    const set = /^--set ([^=]+)=/s.exec(file)?.[1];
    const at = set === undefined ? /^\(script\) (.+)$/s.exec(file)?.[1] : `params.${set}`;
    return {
      code,
      line,
      column,
      ...(at === undefined ? {} : { at }),
      message: withoutPaths(message),
      ...(expected === undefined ? {} : { expected: withoutPaths(expected) }),
      // What the command line calls --set is called params here.
      ...(hint === undefined ? {} : { hint: withoutPaths(hint.replace(/--set ([\w.-]+)=\S*/g, "params.$1")) }),
    };
  });

/** A failed run in words that may leave the machine. */
export const publicWords = (error: unknown): string => withoutPaths(explain(error).split("\n    at ")[0]);

/** Answers refusals as problem details. */
export const answering = <E, R>(
  effect: Effect.Effect<HttpServerResponse.HttpServerResponse, E | Refusal, R>,
): Effect.Effect<HttpServerResponse.HttpServerResponse, Exclude<E, Refusal>, R> =>
  Effect.catchIf(
    effect,
    (error): error is E & Refusal => error instanceof Refusal,
    (refusal) => Effect.succeed(refusal.response),
  ) as Effect.Effect<HttpServerResponse.HttpServerResponse, Exclude<E, Refusal>, R>;

const KIND_OF_STATUS = new Map<number, Kind>(
  (Object.keys(KINDS) as Kind[]).toReversed().map((kind) => [KINDS[kind][0], kind]),
);

/** Whatever an app answers or dies of: errors that are no problem details yet become some. */
export const onlyProblems = <E, R>(
  app: Effect.Effect<HttpServerResponse.HttpServerResponse, E, R>,
): Effect.Effect<HttpServerResponse.HttpServerResponse, never, R> =>
  app.pipe(
    Effect.catchCause((cause) =>
      Effect.map(
        Effect.tap(
          HttpServerError.causeResponse(cause),
          ([{ status }]) => status < 500 || Cause.hasInterruptsOnly(cause) ? Effect.void : Effect.logError(cause),
        ),
        ([response]) => response,
      )
    ),
    Effect.map((response) => {
      if (response.status < 400 || response.headers["content-type"]?.startsWith(ProblemDetails.contentType)) {
        return response;
      }
      return new Refusal({
        kind: KIND_OF_STATUS.get(response.status) ?? (response.status < 500 ? "bad-request" : "internal"),
      })
        .response;
    }),
  );
