/** `sau serve`: pipelines behind HTTP on this machine's device. */
import { Effect, Option } from "effect";
import { Command, Flag } from "effect/cli";
import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { parseSize } from "../pipeline/upkeep.ts";
import { isLoopback } from "../serve/access.ts";
import { createHandler } from "../serve/handler.ts";
import { DEFAULT_LIMITS, type Limits } from "../serve/limits.ts";
import { listen } from "../serve/listen.ts";
import { explain } from "../steps/errors.ts";
import { userCache } from "./cache.ts";
import * as flags from "./flags.ts";
import type { Screen } from "./terminal.ts";

const text = (name: string, description: string) => Flag.String(name).pipe(Flag.withDescription(description));
const several = (name: string, description: string) => Flag.atLeast(text(name, description), 0);
const number = (name: string, description: string, fallback: number) =>
  Flag.Int(name).pipe(Flag.withDescription(description), Flag.withDefault(fallback));

/** Tokens of a file, one a line, and of SAU_TOKENS, apart by commas. Not of a flag: those show in lists of processes. */
const readTokens = (file: string | undefined) =>
  Effect.tryPromise({
    try: async () => {
      const lines = file === undefined ? [] : (await readFile(file, "utf8")).split("\n");
      return [...lines, ...(process.env.SAU_TOKENS ?? "").split(",")].map((line) => line.trim())
        .filter((line) => line !== "" && !line.startsWith("#"));
    },
    catch: (error) => new Error(`--tokens: ${explain(error)}`),
  });

const size = (flag: string, given: string) =>
  Effect.suspend(() => {
    const bytes = parseSize(given);
    return bytes === undefined
      ? Effect.fail(new Error(`--${flag} is "${given}"; expected a size like "500MB", "20GB" or "none"`))
      : Effect.succeed(bytes);
  });

export const serveCommand = (screen: Screen, { curePipeline }: { readonly curePipeline: string }) =>
  Command.make("serve", {
    host: text("host", "Address to listen on").pipe(Flag.withDefault("127.0.0.1")),
    port: number("port", "Port; 0 takes a free one", Number(process.env.PORT) || 8080),
    data: text("data", "Folder for artefacts, records of runs and fetched models").pipe(
      Flag.withDefault(join(process.env.XDG_DATA_HOME || join(homedir(), ".local/share"), "sau")),
    ),
    roots: several("root", "Folder that requests may name models and files in; may be given several times"),
    pipelines: several("pipelines", "Folder of pipelines to offer by name; may be given several times"),
    tokens: text("tokens", "File of bearer tokens, one a line (or the variable SAU_TOKENS)").pipe(Flag.optional),
    models: several("model", "hf:// model that may be fetched: OWNER/NAME, OWNER/* or OWNER/NAME@COMMIT"),
    hub: text("hub", "Where models are fetched from").pipe(Flag.withDefault("https://huggingface.co")),
    poison: Flag.Boolean("poison").pipe(
      Flag.withDescription("Let requests use the steps that make backdoors"),
      Flag.withDefault(false),
    ),
    device: flags.device,
    precision: flags.precision,
    waiting: number("queue", "Runs that may wait for the device", DEFAULT_LIMITS.waiting),
    waitingPerClient: number("queue-per-client", "Of those, how many of one client", DEFAULT_LIMITS.waitingPerClient),
    seconds: number("run-seconds", "Seconds that a run may compute", DEFAULT_LIMITS.seconds),
    memory: text("run-memory", "Memory that a run may take").pipe(Flag.withDefault("16GB")),
    reconnect: number("reconnect", "Seconds that an event-stream reader may be away", DEFAULT_LIMITS.reconnect),
    drain: number("drain", "Seconds that runs are given to end on SIGTERM", DEFAULT_LIMITS.drain),
    json: flags.json,
  }, (given) =>
    Effect.scoped(Effect.gen(function* () {
      const { host, port, data, roots, pipelines, models, hub, poison, device, precision, json } = given;
      const tokens = yield* readTokens(Option.getOrUndefined(given.tokens));
      if (tokens.length === 0 && !isLoopback(host)) {
        return yield* Effect.fail(
          new Error(
            `listening on ${host} needs tokens: anyone could use this device. Give --tokens FILE or SAU_TOKENS`,
          ),
        );
      }
      const { waiting, waitingPerClient, seconds, reconnect, drain } = given;
      const limits: Partial<Limits> = {
        waiting,
        waitingPerClient,
        seconds,
        reconnect,
        drain,
        memory: yield* size("run-memory", given.memory),
      };
      const options = {
        data,
        roots,
        pipelines: pipelines.length === 0 ? [dirname(curePipeline)] : pipelines,
        tokens,
        device,
        precision,
        poison,
        limits,
        hub: { allow: models, url: hub, ...(process.env.HF_TOKEN ? { token: process.env.HF_TOKEN } : {}) },
        cache: yield* userCache,
      };
      const handler = yield* Effect.acquireRelease(
        Effect.try({ try: () => createHandler(options), catch: (error) => error }),
        (it) => Effect.promise(it.dispose),
      );
      const url = yield* listen(handler, { host, port });
      // Released first: while runs end, the server still answers.
      yield* Effect.addFinalizer(() => Effect.promise(handler.drain));
      yield* Effect.sync(() =>
        screen.out(json ? `${JSON.stringify({ status: "listening", url })}\n` : `Listening on ${url}\n`)
      );
      return yield* Effect.never;
    }))).pipe(Command.withDescription("Serve pipelines over HTTP: a page at /, the interface in /openapi.json"));
