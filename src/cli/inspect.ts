/** `sau inspect`: what is in a checkpoint and what is odd about it; with two, what the second one moved. */
import { Effect, Option } from "effect";
import { Argument, Command, Flag } from "effect/cli";
import { createHash } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { isInside } from "../diffusion/files.ts";
import { inspect, type InspectProgress } from "../diffusion/inspect.ts";
import type { Inspection } from "../diffusion/inspection.ts";
import { checkOut, writeFolder } from "../pipeline/outputs.ts";
import { renderInspection } from "../report/inspection.ts";
import { explain, OutputError } from "../steps/errors.ts";
import { formatInspection } from "./inspection_text.ts";
import { duration, type Screen } from "./terminal.ts";

/** Work that is over before this many seconds needs no progress. */
const PATIENCE = 2;
/** Seconds between two lines about it in a log. */
const LOG_EVERY = 15;

/** Draws how far an inspection is, once it takes longer than two seconds. */
const progressLine = (screen: Screen) => {
  let phase = "", began = performance.now(), last = 0, drawn = false;
  const start = performance.now();
  const clear = () => {
    if (drawn) screen.err("\r\x1b[K");
    drawn = false;
  };
  const onProgress = ({ what, path, done, total }: InspectProgress) =>
    Effect.sync(() => {
      const now = performance.now();
      if (phase !== `${what} ${path}`) [phase, began] = [`${what} ${path}`, now];
      if (now - start < 1000 * PATIENCE || now - last < (screen.live ? 100 : 1000 * LOG_EVERY)) return;
      last = now;
      const seconds = (now - began) / 1000, share = done / Math.max(1, total);
      const left = share > 0.01 ? `, ${duration(seconds / share - seconds)} left` : "";
      const text = `▸ ${what} ${path}  ${(100 * share).toFixed(0)} %${left}`;
      clear();
      if (!screen.live) return screen.err(`${text}\n`);
      screen.err(text.slice(0, Math.max(20, screen.columns() - 1)));
      drawn = true;
    });
  return { onProgress, clear };
};

const write = (inspection: Inspection, out: string) =>
  writeFolder(out, (temporary) =>
    Effect.tryPromise({
      try: async () => {
        const files: Readonly<Record<string, string>> = {
          "inspection.json": `${JSON.stringify(inspection, null, 1)}\n`,
          "inspect.html": renderInspection(inspection),
        };
        const outputs: Record<string, string> = {};
        for (const [name, content] of Object.entries(files)) {
          await writeFile(join(temporary, name), content);
          outputs[name] = createHash("sha256").update(content).digest("hex");
        }
        const { version, path, other } = inspection;
        const manifest = { tool: "sau", kind: "inspection", version, model: path, other: other?.path ?? null, outputs };
        await writeFile(join(temporary, "manifest.json"), `${JSON.stringify(manifest, null, 2)}\n`);
      },
      catch: (error) => new OutputError({ path: out, message: explain(error) }),
    }));

export const inspectCommand = (screen: Screen, warned: () => void) =>
  Command.make("inspect", {
    model: Argument.String("MODEL").pipe(
      Argument.withDescription("diffusers folder, the folder of one part, or a .safetensors file"),
    ),
    other: Argument.String("OTHER").pipe(
      Argument.withDescription("another one, to be told what it moved against MODEL"),
      Argument.optional,
    ),
    out: Flag.String("out").pipe(
      Flag.withDescription("Folder for inspect.html and inspection.json"),
      Flag.optional,
    ),
    strict: Flag.Boolean("strict").pipe(
      Flag.withDescription("End with exit code 1 when there is a warning, in either of the two"),
      Flag.withDefault(false),
    ),
    json: Flag.Boolean("json").pipe(Flag.withDescription("Print the whole result as JSON"), Flag.withDefault(false)),
  }, ({ model, other, out, strict, json }) =>
    Effect.gen(function* () {
      const folder = Option.getOrUndefined(out);
      const given = [model, ...Option.toArray(other)];
      if (folder !== undefined) {
        if (given.some((path) => isInside(resolve(folder), resolve(path)))) {
          return yield* new OutputError({
            path: folder,
            message: `${folder} lies in a checkpoint; --out must be elsewhere`,
          });
        }
        yield* checkOut(folder);
      }
      const { onProgress, clear } = progressLine(screen);
      const inspection = yield* inspect(model, Option.getOrUndefined(other), { onProgress }).pipe(
        Effect.onExit(() => Effect.sync(clear)),
      );
      const findings = [...inspection.findings, ...inspection.other?.findings ?? []];
      if (strict && findings.some((f) => f.severity === "warn")) warned();
      if (folder !== undefined) yield* write(inspection, folder);
      yield* Effect.sync(() => {
        screen.out(`${json ? JSON.stringify(inspection, null, 1) : formatInspection(inspection)}\n`);
        if (folder !== undefined && !json) screen.out(`\nThe page is ${join(folder, "inspect.html")}.\n`);
      });
    })).pipe(
      Command.withDescription(
        "Show what is in a checkpoint and what is odd about it; with two, what the second one moved",
      ),
    );
