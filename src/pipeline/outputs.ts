/**
 * The result folder: what the pipeline hands back, verdict.json, report.html, manifest.json. It is written beside its
 * place and renamed, so that it is there whole or not at all; an older result is replaced, anything else is left alone.
 */
import { Effect } from "effect";
import { createReadStream } from "node:fs";
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, rmdir, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join, relative, resolve, sep } from "node:path";
import { explain, OutputError } from "../steps/errors.ts";
import type { SaveOptions } from "../steps/port.ts";
import { write } from "../tensor/safetensors.ts";
import type { RunResult } from "./run.ts";

const attempt = <A>(path: string, body: () => Promise<A>): Effect.Effect<A, OutputError> =>
  Effect.tryPromise({
    try: body,
    catch: (error) => error instanceof OutputError ? error : new OutputError({ path, message: explain(error) }),
  });

/** Whether a folder may be (re)placed: absent, empty, or a result of ours. */
const check = async (dir: string): Promise<"absent" | "empty" | "ours"> => {
  const info = await stat(dir).catch(() => undefined);
  if (info === undefined) return "absent";
  const refuse = (what: string) =>
    new OutputError({ path: dir, message: `${dir} ${what}; choose another folder for --out` });
  if (!info.isDirectory()) throw refuse("is a file");
  if ((await readdir(dir)).length === 0) return "empty";
  const manifest: unknown = await readFile(join(dir, "manifest.json"), "utf8").then(JSON.parse).catch(() => undefined);
  if (typeof manifest === "object" && manifest !== null && "tool" in manifest && manifest.tool === "sau") return "ours";
  throw refuse("is not empty and holds no result of sau (no manifest.json of its making), so it is not replaced");
};

/** Refuses a result folder before hours are spent, not after. */
export const checkOut = (dir: string): Effect.Effect<void, OutputError> =>
  Effect.asVoid(attempt(dir, () => check(resolve(dir))));

const hashStream = async (path: string): Promise<string> => {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk);
  return hash.digest("hex");
};

/** Folder or file stem of an output. */
const stem = (name: string, kind: string): string => kind === "model" && name === "model" ? "cured" : name;

export interface Written {
  /** Absolute path of the folder. */
  readonly dir: string;
  /** Paths within it, in alphabetical order. */
  readonly files: ReadonlyArray<string>;
  /** What there is to say about them. */
  readonly notes: ReadonlyArray<string>;
}

export const writeOutputs = Effect.fn("pipeline.writeOutputs")(function* <R>(
  run: RunResult<R>,
  out: string,
  options: { readonly renderReport?: (run: RunResult<R>) => string; readonly save?: SaveOptions } = {},
): Effect.fn.Return<Written, OutputError> {
  const dir = resolve(out);
  yield* checkOut(dir);
  const notes: string[] = [];
  const fill = Effect.fnUntraced(function* (temporary: string) {
    for (const [name, { wire: { port }, value }] of Object.entries(run.outputs)) {
      const path = join(temporary, stem(name, port.kind));
      if (port.save !== undefined) {
        const said = yield* port.save(value, path, options.save).pipe(
          Effect.mapError((error) =>
            new OutputError({ path: join(dir, stem(name, port.kind)), message: explain(error) })
          ),
        );
        notes.push(...said ?? []);
        continue;
      }
      const { json, tensors } = port.encode(value);
      yield* attempt(dir, async () => {
        await writeFile(`${path}.json`, `${JSON.stringify(json, null, 2)}\n`);
        // A verdict's tensors are the pictures that the report shows.
        const map = new Map(port.kind === "verdict" ? [] : Object.entries(tensors));
        if (map.size > 0) await writeFile(`${path}.safetensors`, write(map));
      });
    }
    if (options.renderReport !== undefined) {
      const html = options.renderReport({ ...run, manifest: { ...run.manifest, notes } });
      yield* attempt(dir, () => writeFile(join(temporary, "report.html"), html));
    }
    yield* attempt(dir, async () => {
      const files = await listFiles(temporary);
      const outputs: Record<string, string> = {};
      for (const file of files) outputs[file] = await hashStream(join(temporary, file));
      const manifest = { ...run.manifest, ...(notes.length > 0 ? { notes } : {}), outputs };
      await writeFile(join(temporary, "manifest.json"), `${JSON.stringify(manifest, null, 2)}\n`);
    });
  });

  return { ...yield* writeFolder(dir, fill), notes };
});

/**
 * A result folder that is filled beside its place and put there by a rename. What `fill` writes should hold a
 * manifest.json with `tool: "sau"`: a folder without one is not replaced by a later result.
 */
export const writeFolder = Effect.fnUntraced(function* <E>(
  out: string,
  fill: (temporary: string) => Effect.Effect<void, E>,
): Effect.fn.Return<Omit<Written, "notes">, E | OutputError> {
  const dir = resolve(out);
  return yield* Effect.acquireUseRelease(
    attempt(dir, async () => {
      await mkdir(dirname(dir), { recursive: true });
      const temporary = join(dirname(dir), `.${basename(dir)}-${crypto.randomUUID().slice(0, 8)}`);
      await mkdir(temporary);
      return temporary;
    }),
    (temporary) =>
      Effect.gen(function* () {
        yield* fill(temporary);
        const files = yield* attempt(dir, () => listFiles(temporary));
        yield* Effect.uninterruptible(attempt(dir, () => put(temporary, dir)));
        return { dir, files };
      }),
    (temporary) => Effect.promise(() => rm(temporary, { recursive: true, force: true }).catch(() => {})),
  );
});

const listFiles = async (dir: string): Promise<string[]> =>
  (await readdir(dir, { recursive: true, withFileTypes: true }))
    .filter((entry) => !entry.isDirectory())
    .map((entry) => relative(dir, join(entry.parentPath, entry.name)).split(sep).join("/"))
    .sort();

/** Puts the finished folder in its place. What was there steps aside first and comes back if that fails. */
const put = async (temporary: string, dir: string): Promise<void> => {
  const state = await check(dir);
  if (state === "empty") await rmdir(dir);
  if (state !== "ours") return await rename(temporary, dir);
  const aside = `${temporary}-old`;
  await rename(dir, aside);
  try {
    await rename(temporary, dir);
  } catch (error) {
    await rename(aside, dir);
    throw error;
  }
  await rm(aside, { recursive: true, force: true });
};
