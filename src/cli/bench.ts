/** `sau bench`: attacks × cures from a file, as one table. */
import { Effect } from "effect";
import { Argument, Command, Flag } from "effect/cli";
import { join, resolve } from "node:path";
import { nameOf, readMatrix } from "../bench/matrix.ts";
import { benchPage } from "../bench/page.ts";
import { replace, runBench } from "../bench/run.ts";
import { cellText, COLUMNS } from "../bench/table.ts";
import { explain, OutputError } from "../steps/errors.ts";
import type { AppOptions } from "./app.ts";
import { userCache } from "./cache.ts";
import * as flags from "./flags.ts";
import { jsonView, liveView, plainView } from "./progress.ts";
import { duration, table } from "./terminal.ts";

/** Columns that fit a terminal; the page has all of them. */
const SHOWN = 6;

export const benchCommand = <R>(app: AppOptions<R>) =>
  Command.make("bench", {
    file: Argument.String("FILE").pipe(
      Argument.withDescription("Bench file: attacks, cures, seeds"),
      Argument.withDefault(app.benchFile),
    ),
    out: Flag.String("out").pipe(
      Flag.withDescription("Folder for rows, table and reports; a second run goes on there"),
    ),
    attacks: Flag.String("attack").pipe(
      Flag.withDescription("Run cells of this attack alone; may be given several times. Rows of others stay"),
      Flag.atLeast(0),
    ),
    cures: Flag.String("cure").pipe(
      Flag.withDescription("Run cells of this cure alone; may be given several times"),
      Flag.atLeast(0),
    ),
    seeds: Flag.Int("seed").pipe(
      Flag.withDescription("Run cells of this seed alone; may be given several times"),
      Flag.atLeast(0),
    ),
    device: flags.device,
    precision: flags.precision,
    json: flags.json,
  }, ({ file, out, attacks, cures, seeds, device, precision, json }) =>
    Effect.scoped(Effect.gen(function* () {
      const { screen } = app;
      const matrix = yield* readMatrix(file);
      const environment = yield* app.environment(device, precision);
      const view = json ? jsonView(screen) : screen.live ? liveView(screen) : plainView(screen);
      const folder = resolve(out);
      const result = yield* runBench(matrix, {
        steps: app.steps,
        environment,
        cache: yield* userCache,
        file,
        selected: { attacks, cures, seeds },
        out: folder,
        onEvent: view.onEvent,
        onCell: (cell, index, count, left) =>
          Effect.sync(() => {
            if (json) {
              const { attack, cure, seed } = cell;
              return screen.out(`${JSON.stringify({ status: "cell", attack, cure, seed, index, count, left })}\n`);
            }
            view.end();
            const remaining = left === undefined ? "" : `, about ${duration(left)} left`;
            screen.err(`cell ${index + 1} of ${count}: ${nameOf(cell)}${remaining}\n`);
          }),
        ...(app.renderReport === undefined ? {} : { renderReport: app.renderReport }),
      }).pipe(Effect.onExit(() => Effect.sync(view.end)));
      yield* Effect.tryPromise({
        try: () => replace(join(folder, "table.html"), benchPage(result)),
        catch: (error) => new OutputError({ path: folder, message: explain(error) }),
      });
      const shown = COLUMNS.slice(0, SHOWN);
      const text = json ? JSON.stringify({ status: "result", out: folder, ...result }) : [
        table([
          ["Attack", "Cure", "Seed", ...shown.map((c) => c.title)],
          ...result.rows.map((row) => [
            row.attack,
            row.cure,
            String(row.seed),
            ...shown.map((c) => cellText(c, row)),
          ]),
        ]),
        ...result.failed.map(({ cell, why }) => `failed: ${cell}: ${why}`),
        `Rows in ${join(out, "results.json")}, the table with plots in ${join(out, "table.html")}.`,
      ].join("\n");
      yield* Effect.sync(() => screen.out(`${text}\n`));
      if (result.failed.length > 0) {
        return yield* Effect.fail(
          new Error(`${result.failed.length} of the bench's cells failed; a second run tries them again`),
        );
      }
    }))).pipe(
      Command.withDescription("Run attacks × cures and compare them in one table; what is done already is kept"),
    );
