/**
 * Files that runs leave, by the SHA-256 of their content: equal ones lie there once, a name cannot be guessed, an answer may be
 * kept for ever. Ranges as in RFC 9110 §14, one at a time.
 */
import { Effect, Stream } from "effect";
import { HttpServerResponse } from "effect/http";
import { createReadStream } from "node:fs";
import { mkdir, readdir, readFile, rename, rm, stat, utimes } from "node:fs/promises";
import { extname, join } from "node:path";
import { sha256 } from "../pipeline/hash.ts";
import type { Artefact } from "./api.ts";
import { Refusal } from "./problems.ts";

const SHA256 = /^[0-9a-f]{64}$/;

/** Types that a browser may show; everything else is bytes to be saved. */
const TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".json": "application/json",
  ".txt": "text/plain; charset=utf-8",
  ".png": "image/png",
};

/** A range of `bytes` as first and last byte; undefined for the whole, null where none of it is there. */
export const parseRange = (
  header: string | undefined,
  bytes: number,
): { readonly first: number; readonly last: number } | null | undefined => {
  // Several ranges, other units and nonsense are left out of account, as the RFC allows.
  const match = /^bytes=(\d*)-(\d*)$/.exec(header?.trim() ?? "");
  if (match === null || (match[1] === "" && match[2] === "")) return undefined;
  if (match[1] === "") {
    const length = Math.min(Number(match[2]), bytes);
    return length === 0 ? null : { first: bytes - length, last: bytes - 1 };
  }
  const first = Number(match[1]);
  const last = match[2] === "" ? bytes - 1 : Math.min(Number(match[2]), bytes - 1);
  if (match[2] !== "" && Number(match[2]) < first) return undefined;
  return first >= bytes ? null : { first, last };
};

export const makeArtefacts = (folder: string, limit: number) => {
  const at = (hash: string) => join(folder, hash.slice(0, 2), hash);

  const prune = async (): Promise<void> => {
    const all: Array<{ path: string; bytes: number; used: number }> = [];
    for (const prefix of await readdir(folder).catch(() => [])) {
      for (const name of await readdir(join(folder, prefix)).catch(() => [])) {
        const path = join(folder, prefix, name);
        const info = await stat(path).catch(() => undefined);
        if (info !== undefined) all.push({ path, bytes: info.size, used: info.mtimeMs });
      }
    }
    let total = all.reduce((sum, { bytes }) => sum + bytes, 0);
    for (const { path, bytes } of all.sort((a, b) => a.used - b.used)) {
      if (total <= limit) return;
      await rm(path, { force: true });
      total -= bytes;
    }
  };

  return {
    /** Takes the files of a finished result folder in, with the hashes that its manifest gives them. */
    take: (dir: string, files: ReadonlyArray<string>): Effect.Effect<Artefact[], unknown> =>
      Effect.tryPromise({
        try: async () => {
          const manifest = await readFile(join(dir, "manifest.json"), "utf8");
          const { outputs }: { outputs: Record<string, string> } = JSON.parse(manifest);
          const found: Artefact[] = [];
          for (const name of files) {
            const hash = name === "manifest.json" ? sha256(manifest) : outputs[name];
            const bytes = (await stat(join(dir, name))).size;
            await mkdir(join(folder, hash.slice(0, 2)), { recursive: true });
            await rename(join(dir, name), at(hash));
            const now = new Date();
            await utimes(at(hash), now, now);
            found.push({ name, sha256: hash, bytes, href: `/artefacts/${hash}?name=${encodeURIComponent(name)}` });
          }
          await rm(dir, { recursive: true, force: true });
          await prune();
          return found;
        },
        catch: (error) => error,
      }),

    /** The answer to a request for one. */
    serve: (
      hash: string,
      { name = "", range, ifRange, ifNoneMatch }: {
        readonly name?: string | undefined;
        readonly range?: string | undefined;
        readonly ifRange?: string | undefined;
        readonly ifNoneMatch?: string | undefined;
      },
    ): Effect.Effect<HttpServerResponse.HttpServerResponse, Refusal> =>
      Effect.gen(function* () {
        const info = SHA256.test(hash) ? yield* Effect.promise(() => stat(at(hash)).catch(() => undefined)) : undefined;
        if (info === undefined) {
          return yield* new Refusal({ kind: "not-found", detail: "there is no artefact of that hash (any more)" });
        }
        const now = new Date();
        yield* Effect.promise(() => utimes(at(hash), now, now).catch(() => {}));
        const etag = `"${hash}"`;
        const shown = TYPES[extname(name)];
        const headers = {
          "accept-ranges": "bytes",
          etag,
          "cache-control": "private, max-age=31536000, immutable",
          "x-content-type-options": "nosniff",
          // A report is shown in a world of its own: whatever stands in it reaches nothing of this server.
          "content-security-policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:",
          "content-disposition": shown === undefined ? "attachment" : "inline",
        };
        if (ifNoneMatch === "*" || ifNoneMatch?.split(",").some((tag) => tag.trim().replace(/^W\//, "") === etag)) {
          return HttpServerResponse.empty({ status: 304, headers });
        }
        const part = ifRange === undefined || ifRange === etag ? parseRange(range, info.size) : undefined;
        if (part === null) {
          return yield* new Refusal({
            kind: "range-not-satisfiable",
            detail: `the artefact has ${info.size} bytes`,
            headers: { "content-range": `bytes */${info.size}` },
          });
        }
        const { first, last } = part ?? { first: 0, last: info.size - 1 };
        const body = info.size === 0 ? Stream.empty : Stream.fromAsyncIterable(
          createReadStream(at(hash), { start: first, end: last }) as AsyncIterable<Uint8Array>,
          (error) => error,
        );
        return HttpServerResponse.stream(body, {
          status: part === undefined ? 200 : 206,
          contentType: shown ?? "application/octet-stream",
          contentLength: last - first + 1,
          headers: part === undefined
            ? headers
            : { ...headers, "content-range": `bytes ${first}-${last}/${info.size}` },
        });
      }),
  };
};
export type Artefacts = ReturnType<typeof makeArtefacts>;
