/** Who may ask: bearer tokens, compared in constant time; without any, only programs and pages of this machine. */
import { Effect } from "effect";
import type { HttpServerRequest } from "effect/http";
import { createHash, timingSafeEqual } from "node:crypto";
import { Refusal } from "./problems.ts";

export interface AccessOptions {
  /** Bearer tokens that are taken. */
  readonly tokens?: ReadonlyArray<string>;
  /** Who needs no token where there are none: requests to a loopback address (the default), or anyone. */
  readonly anonymous?: "loopback" | "anyone";
}

/** Least length of a token: shorter ones can be guessed. */
export const TOKEN_LENGTH = 16;

const digest = (text: string): Uint8Array => createHash("sha256").update(text).digest();

/** Whether a host (as in a URL) is this machine's own. */
export const isLoopback = (host: string): boolean =>
  /^(localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\]|::1)$/i.test(host);

const urlOf = (text: string): URL | undefined => URL.canParse(text) ? new URL(text) : undefined;

/** The host that a request was sent to, with its port. */
const hostOf = ({ headers, source }: HttpServerRequest.HttpServerRequest): URL | undefined =>
  headers.host === undefined
    ? source instanceof Request ? urlOf(source.url) : undefined
    : urlOf(`http://${headers.host}`);

export const makeAccess = ({ tokens = [], anonymous = "loopback" }: AccessOptions) => {
  for (const token of tokens) {
    if (token.length < TOKEN_LENGTH) throw new Error(`a token of fewer than ${TOKEN_LENGTH} characters can be guessed`);
  }
  const known = tokens.map((token) => ({ sha: digest(token), name: digest(`name ${token}`) }));
  return {
    /** The name under which a token's runs go. Every known token is compared, each in the same time. */
    client: (token: string): Effect.Effect<string, Refusal> => {
      if (known.length === 0) return Effect.succeed("anonymous");
      const sha = digest(token);
      const found = known.filter((one) => timingSafeEqual(one.sha, sha));
      return found.length > 0
        ? Effect.succeed(
          found[0].name.subarray(0, 8).reduce((hex, byte) => hex + byte.toString(16).padStart(2, "0"), ""),
        )
        : Effect.fail(
          new Refusal({
            kind: "unauthorized",
            detail: "send the header Authorization: Bearer TOKEN",
            headers: { "www-authenticate": "Bearer" },
          }),
        );
    },
    /**
     * Turns down what a page of another site sends through a browser of this machine: a foreign Origin, and without
     * tokens any name but this machine's own (which is how a rebound name would come in).
     */
    guard: (request: HttpServerRequest.HttpServerRequest): Effect.Effect<void, Refusal> => {
      const host = hostOf(request);
      const { origin } = request.headers;
      if (origin !== undefined && urlOf(origin)?.host !== host?.host) {
        return Effect.fail(new Refusal({ kind: "forbidden", detail: "pages of other sites are not served" }));
      }
      if (known.length === 0 && anonymous === "loopback" && !(host !== undefined && isLoopback(host.hostname))) {
        return Effect.fail(
          new Refusal({ kind: "forbidden", detail: "without tokens this server answers on a loopback address only" }),
        );
      }
      return Effect.void;
    },
  };
};
export type Access = ReturnType<typeof makeAccess>;
