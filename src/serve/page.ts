/** The page at /: plain files of ours. Its script is the only one that may run in it. */
import { Effect, Layer } from "effect";
import { HttpRouter, HttpServerResponse } from "effect/http";
import { readFile } from "node:fs/promises";

const FILES = {
  "/": ["index.html", "text/html; charset=utf-8"],
  "/page.js": ["page.js", "text/javascript; charset=utf-8"],
  "/page.css": ["page.css", "text/css; charset=utf-8"],
} as const;

/** Styles stand in the report that the page shows; script comes from our own file alone. */
const HEADERS = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; " +
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cache-control": "no-cache",
};

export const PAGE_PATHS: ReadonlyArray<string> = Object.keys(FILES);

export const pageRoutes = Layer.mergeAll(
  ...(Object.keys(FILES) as Array<keyof typeof FILES>).map((path) => {
    const [file, contentType] = FILES[path];
    const body = Effect.promise(() => readFile(new URL(`./page/${file}`, import.meta.url)));
    return HttpRouter.add(
      "GET",
      path,
      Effect.map(body, (bytes) => HttpServerResponse.uint8Array(bytes, { contentType, headers: HEADERS })),
    );
  }) as [Layer.Layer<never, never, HttpRouter.HttpRouter>],
);
