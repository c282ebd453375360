/**
 * A typed client, made from the same definition as the routes.
 *
 *     const sau = yield* connect("http://127.0.0.1:8080", { token });
 *     const events = yield* sau.run({ headers: {}, payload: { pipeline: "sau", params: { model: "my-model" } } });
 *     yield* Stream.runForEach(events, Console.log);
 *     const screened = yield* sau.screen({ headers: {}, payload: { prompts: ["a cat"], params: { model: "my-model" } } });
 */
import { Effect } from "effect";
import { FetchHttpClient, HttpClient, HttpClientRequest } from "effect/http";
import { HttpApiClient } from "effect/http-api";
import { Api } from "./api.ts";

/** A client of the server at an address, over `fetch`. */
export const connect = (url: string, { token }: { readonly token?: string } = {}) =>
  HttpApiClient.make(Api, {
    baseUrl: url,
    transformClient: (client) =>
      token === undefined ? client : HttpClient.mapRequest(client, HttpClientRequest.bearerToken(token)),
  }).pipe(Effect.provide(FetchHttpClient.layer));

export type SauClient = Effect.Success<ReturnType<typeof connect>>;
