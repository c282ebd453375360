/**
 * A command as a process: Ctrl-C interrupts it (a second one ends it on the spot), its failure is told in plain words,
 * and the process ends by itself even while ONNX Runtime's threads would keep it alive.
 */
import * as NodeServices from "@effect/platform-node/NodeServices";
import { Cause, Effect, Exit, Fiber, Predicate } from "effect";
import { CliError } from "effect/cli";
import process from "node:process";
import { explain, SpecError } from "../steps/errors.ts";
import { app, type AppOptions } from "./app.ts";
import type { Screen } from "./terminal.ts";

/** 0 done and passed, 1 the verdict fails, 2 it could not be done. */
export const EXIT = { passed: 0, verdictFailed: 1, cannot: 2, interrupted: 130, terminated: 143 } as const;

const describeFailure = (error: unknown, screen: Screen, json: boolean): void => {
  const message = explain(error);
  screen.err(`${message}\n`);
  if (json) {
    const problems = error instanceof SpecError ? { problems: error.problems } : {};
    const tag = Predicate.isObject(error) && "_tag" in error ? error._tag : "Error";
    screen.out(`${JSON.stringify({ status: "error", tag, message, ...problems })}\n`);
  }
};

/**
 * Waits until what was written has left: ending the process earlier would cut off a pipe. The stream is ended, since in
 * Bun the callback of a later write comes before the pipe has taken an earlier large one.
 */
const flush = (stream: NodeJS.WriteStream): Promise<void> => new Promise((done) => void stream.end(() => done()));

/** Runs the command line and ends the process with its exit code. */
export const main = async <R>(
  args: ReadonlyArray<string>,
  options: Omit<AppOptions<R>, "verdictFailed">,
): Promise<never> => {
  let failed = false;
  let signal: "SIGINT" | "SIGTERM" | undefined;
  const { screen } = options;
  // `sau steps | head` closes our end of the pipe: that is no error.
  process.stdout.on("error", () => process.exit(EXIT.passed));

  const program = app({ ...options, verdictFailed: () => void (failed = true) })(args);
  const fiber = Effect.runFork(program.pipe(Effect.provide(NodeServices.layer)));
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    process.on(name, () => {
      if (signal !== undefined) process.exit(EXIT.interrupted);
      signal = name;
      fiber.interruptUnsafe(fiber.id);
    });
  }
  const exit = await Effect.runPromise(Fiber.await(fiber));
  let code: number = failed ? EXIT.verdictFailed : EXIT.passed;
  if (signal !== undefined) {
    const kept = ["run", "cure", "bench", "serve"].includes(args[0]) && !args.includes("--no-cache");
    screen.err(`\nStopped.${kept ? " Finished steps are kept: the same command goes on from there." : ""}\n`);
    code = signal === "SIGTERM" ? EXIT.terminated : EXIT.interrupted;
  } else if (Exit.isFailure(exit)) {
    const error = Cause.squash(exit.cause);
    // The command line's own errors have been shown with their help.
    if (!CliError.isCliError(error)) describeFailure(error, screen, args.includes("--json"));
    if (process.env.SAU_DEBUG) screen.err(`${Cause.pretty(exit.cause)}\n`);
    code = EXIT.cannot;
  }
  await Promise.all([flush(process.stdout), flush(process.stderr)]);
  process.exit(code);
};
