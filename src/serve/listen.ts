/** A handler on a port, over node:http: the same under Deno and Bun. */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer";
import { Data, Effect, type Scope } from "effect";
import { HttpEffect } from "effect/http";
import { createServer } from "node:http";
import type { Handler } from "./handler.ts";

export class ListenError extends Data.TaggedError("ListenError")<{ readonly message: string }> {}

/** Listens until the scope ends; gives the address. Port 0 takes a free one. */
export const listen = (
  { fetch }: Pick<Handler, "fetch">,
  { host, port }: { readonly host: string; readonly port: number },
): Effect.Effect<string, ListenError, Scope.Scope> =>
  Effect.gen(function* () {
    const server = yield* NodeHttpServer.make(() => createServer(), {
      host,
      port,
      gracefulShutdownTimeout: "1 second",
    });
    yield* server.serve(HttpEffect.fromWebHandler(fetch));
    const { address } = server;
    const shown = "port" in address ? address.port : port;
    return `http://${host.includes(":") ? `[${host}]` : host}:${shown}`;
  }).pipe(Effect.mapError((error) => {
    const cause = error.cause instanceof Error ? error.cause.message : String(error.cause);
    return new ListenError({ message: `cannot listen on ${host}:${port}: ${cause}` });
  }));
