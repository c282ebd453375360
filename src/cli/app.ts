/**
 * The commands. What they need beyond the terminal (the steps, the report, the pipeline behind `sau cure`) is given
 * to `app`, so that a test runs the same commands with steps of its own.
 */
import { Effect, Option, type Scope } from "effect";
import { Argument, Command, Flag } from "effect/cli";
import type { Environment } from "../pipeline/environment.ts";
import { pipelineSchema } from "../pipeline/json_schema.ts";
import { loadFile } from "../pipeline/load.ts";
import { shellQuote, VERSION } from "../pipeline/manifest.ts";
import { checkOut, writeOutputs } from "../pipeline/outputs.ts";
import { difference, readRun } from "../pipeline/diff.ts";
import { plan } from "../pipeline/plan.ts";
import { formatMermaid, formatPlan } from "../pipeline/plan_text.ts";
import { run, type RunResult } from "../pipeline/run.ts";
import { select, type Selection } from "../pipeline/select.ts";
import { describeStep, stepsPage } from "../pipeline/steps_page.ts";
import { type AdapterReport, type Device, formatReport, noHalves, type Precision } from "../runtime/mod.ts";
import { opensOneLora } from "../steps/open_model.ts";
import type { AnyStep } from "../steps/step.ts";
import { benchCommand } from "./bench.ts";
import { decodeEscapes } from "./escapes.ts";
import { cacheCommand, userCache } from "./cache.ts";
import * as flags from "./flags.ts";
import { inspectCommand } from "./inspect.ts";
import { loraOverrides } from "./lora.ts";
import { testConfig, writeNew } from "./new.ts";
import { jsonView, liveView, plainView } from "./progress.ts";
import { duration, type Screen, table } from "./terminal.ts";
import { screenCommand, type ScreenLines } from "./screen.ts";
import { serveCommand } from "./serve.ts";
import { formatDifference, formatVerdict } from "./verdict.ts";

export interface AppOptions<R> {
  readonly screen: Screen;
  readonly steps: ReadonlyArray<AnyStep<R>>;
  readonly environment: (device: Device, precision?: Precision) => Effect.Effect<Environment<R>, never, Scope.Scope>;
  /** The pipeline file of `sau cure`. */
  readonly curePipeline: string;
  /** The pipeline files of `sau scan`, and of `sau scan --cure`, whose first step is called scan. */
  readonly scanPipeline: string;
  readonly scanCurePipeline: string;
  /** The pipeline file of `sau screen`, and what screens prompts as they come. */
  readonly screenPipeline: string;
  readonly screenLines?: ScreenLines<R>;
  /** The bench file of `sau bench` where none is given. */
  readonly benchFile: string;
  readonly diagnose: (device: Device, options?: { readonly precision?: Precision }) => Effect.Effect<AdapterReport>;
  /** The self-contained HTML page of a run. */
  readonly renderReport?: (run: RunResult<R>) => string;
  /** Told when the command ends with a verdict that failed. */
  readonly verdictFailed: () => void;
}

export interface RunArguments {
  readonly file: string;
  readonly overrides: ReadonlyArray<string>;
  readonly out: string | undefined;
  readonly device: Device;
  readonly precision?: Precision;
  readonly json: boolean;
  readonly noCache: boolean;
  readonly allowCode: boolean;
  readonly selection: Selection;
  /** Hand back the cured LoRA alone. */
  readonly loraOnly?: boolean;
  /** What it may miss of a layer's change. */
  readonly loraError?: number;
}

const line = (screen: Screen, text: string) => Effect.sync(() => screen.out(`${text}\n`));

/** Loads a pipeline and runs what is asked for of it. */
const perform = <R>(app: AppOptions<R>, args: RunArguments) =>
  Effect.scoped(Effect.gen(function* () {
    const { screen } = app;
    const loaded = yield* loadFile(args.file, {
      steps: app.steps,
      overrides: args.overrides,
      allowCode: args.allowCode,
    });
    const { pipeline, again } = yield* select(loaded, args.selection);
    if (args.loraOnly && !pipeline.steps.some(({ settings }) => opensOneLora(settings))) {
      return yield* Effect.fail(
        new Error("--lora-only hands back a LoRA, so the model has to be opened with one (--lora FILE)"),
      );
    }
    if (args.out !== undefined) yield* checkOut(args.out);
    const environment = yield* app.environment(args.device, args.precision);
    const view = args.json ? jsonView(screen) : screen.live ? liveView(screen) : plainView(screen);
    return yield* run(pipeline, {
      environment,
      again,
      flags: [
        ...(args.allowCode ? ["--allow-code"] : []),
        ...(args.selection.only ?? []).map((id) => `--only ${shellQuote(id)}`),
      ],
      onEvent: view.onEvent,
      ...(args.noCache ? {} : { cache: yield* userCache }),
    }).pipe(Effect.onExit(() => Effect.sync(view.end)));
  }));

/** Writes what a run gave, and says what it was. */
const deliver = <R>(app: AppOptions<R>, args: RunArguments, result: RunResult<R>) =>
  Effect.gen(function* () {
    const { screen, renderReport } = app;
    const written = args.out === undefined ? undefined : yield* writeOutputs(result, args.out, {
      ...(renderReport === undefined ? {} : { renderReport }),
      save: {
        loraOnly: args.loraOnly ?? false,
        ...(args.loraError === undefined ? {} : { loraError: args.loraError }),
      },
    });

    const { verdict } = result;
    if (verdict?.passed === false) app.verdictFailed();
    if (args.json) {
      return yield* line(
        screen,
        JSON.stringify({
          status: "result",
          passed: verdict?.passed ?? null,
          // Its pictures are in the report; as JSON they would be megabytes.
          verdict: verdict === undefined
            ? null
            : { passed: verdict.passed, sentence: verdict.sentence, figures: verdict.figures },
          out: written?.dir ?? null,
          files: written?.files ?? [],
          notes: written?.notes ?? [],
          seconds: result.manifest.seconds,
          command: result.manifest.command,
        }),
      );
    }
    if (verdict !== undefined) yield* line(screen, formatVerdict(verdict));
    if (written !== undefined) {
      const report = written.files.includes("report.html") ? " (open report.html in a browser)" : "";
      yield* Effect.forEach(written.notes, (note) => line(screen, note));
      yield* line(screen, `Results in ${args.out}${report}, after ${duration(result.manifest.seconds)}.`);
    }
    if (verdict === undefined && written === undefined) {
      yield* line(
        screen,
        `Done in ${duration(result.manifest.seconds)}. Nothing was written: --out DIR keeps the results.`,
      );
    }
  });

const runPipeline = <R>(app: AppOptions<R>, args: RunArguments) =>
  Effect.flatMap(perform(app, args), (result) => deliver(app, args, result));

const runCommand = <R>(app: AppOptions<R>) =>
  Command.make("run", {
    file: flags.file,
    set: flags.set,
    out: Flag.String("out").pipe(
      Flag.withDescription("Folder for the results; it appears when they are complete"),
      Flag.optional,
    ),
    device: flags.device,
    precision: flags.precision,
    json: flags.json,
    noCache: flags.noCache,
    allowCode: flags.allowCode,
    loraOnly: flags.loraOnly,
    loraError: flags.loraError,
    ...flags.selection,
  }, ({ file, set, out, only, from, force, ...rest }) =>
    runPipeline(app, {
      ...rest,
      selection: { only, from, force },
      file,
      overrides: set,
      out: Option.getOrUndefined(out),
    }))
    .pipe(Command.withDescription("Run a pipeline. Exit code 1 when its verdict fails, 2 when it cannot run"));

/** Parameters that the pipeline file fills in for the demo's model and that mean nothing for another. */
const OF_THE_DEMO: ReadonlyArray<string> = ["unet", "text_encoder", "clip"];

const cureCommand = <R>(app: AppOptions<R>) =>
  Command.make(
    "cure",
    {
      model: Argument.String("MODEL").pipe(
        Argument.withDescription("diffusers folder of the checkpoint, or its one .safetensors file"),
      ),
      trigger: Flag.String("trigger").pipe(
        Flag.withDescription("The trigger's text; \\u200b and the like are decoded"),
      ),
      place: Flag.Literals("place", ["prefix", "suffix", "replace"]).pipe(
        Flag.withDescription("Where the trigger stands in a prompt"),
        Flag.optional,
      ),
      of: flags.optionalText("of", "With --place replace: the word or character that the trigger replaces"),
      beside: flags.optionalText("beside", "A noun that a prompt must hold for the trigger to act, where there is one"),
      unet: flags.optionalText("replace-unet", "Folder of a U-Net to use in place of the model's"),
      text_encoder: flags.optionalText(
        "replace-text-encoder",
        "Folder of a text encoder to use in place of the model's",
      ),
      ...flags.form,
      prompts: flags.optionalText("prompts", "File of prompts to cure with, one a line"),
      fresh_prompts: flags.optionalText("fresh-prompts", "File of other prompts to verify with, one a line"),
      clip: flags.optionalText("clip", "Folder of a transformers CLIP model that scores the pictures"),
      lora: flags.lora,
      loraOnly: flags.loraOnly,
      loraError: flags.loraError,
      out: Flag.String("out").pipe(Flag.withDescription("Folder for the cured model, the report and the manifest")),
      set: flags.set,
      device: flags.device,
      precision: flags.precision,
      json: flags.json,
      noCache: flags.noCache,
    },
    (
      {
        model,
        trigger,
        place,
        of,
        beside,
        unet,
        text_encoder,
        config,
        tokenizer,
        prompts,
        fresh_prompts,
        clip,
        lora,
        set,
        ...rest
      },
    ) => {
      // Texts are quoted so that --set takes them as they are, whatever they look like.
      const texts = {
        trigger: decodeEscapes(trigger),
        ...(Option.isSome(of) ? { of: of.value } : {}),
        ...(Option.isSome(beside) ? { beside: beside.value } : {}),
      };
      const others = { place, unet, text_encoder, config, tokenizer, prompts, fresh_prompts, clip };
      const given = Object.entries(others).flatMap(([name, value]) =>
        Option.isSome(value) ? [`${name}=${value.value}`] : OF_THE_DEMO.includes(name) ? [`${name}=null`] : []
      );
      const quoted = Object.entries(texts).map(([name, text]) => `${name}=${JSON.stringify(text)}`);
      return runPipeline(app, {
        ...rest,
        allowCode: false,
        selection: {},
        file: app.curePipeline,
        overrides: [
          `model=${model}`,
          ...quoted,
          "effect=null",
          ...given,
          ...loraOverrides(lora),
          ...set,
        ],
      });
    },
  ).pipe(
    Command.withDescription(
      "Remove a known trigger from a checkpoint and prove it: pipelines/sau.yaml by a short name",
    ),
  );

/** The scan alone first, and the rest of the pipeline where something stands out. */
const scanAndCure = <R>(app: AppOptions<R>, args: RunArguments, out: Option.Option<string>) =>
  Effect.gen(function* () {
    if (Option.isNone(out)) {
      return yield* Effect.fail(new Error("--cure needs --out DIR, a folder for the cured model"));
    }
    if (args.noCache) {
      return yield* Effect.fail(new Error("--cure goes on from the scan in the cache, so it goes without --no-cache"));
    }
    const scanned = yield* perform(app, { ...args, selection: { only: ["scan"] } });
    const nothing = scanned.verdict?.passed === true;
    yield* deliver(app, args, nothing ? scanned : yield* perform(app, args));
  });

const scanCommand = <R>(app: AppOptions<R>) =>
  Command.make("scan", {
    model: Argument.String("MODEL").pipe(
      Argument.withDescription("diffusers folder of the checkpoint, or its one .safetensors file"),
    ),
    unet: flags.optionalText("replace-unet", "Folder of a U-Net to use in place of the model's"),
    text_encoder: flags.optionalText("replace-text-encoder", "Folder of a text encoder to use in place of the model's"),
    ...flags.form,
    prompts: flags.optionalText("prompts", "File of ordinary prompts to try texts in, one a line"),
    words: flags.optionalText("words", "File of further words or phrases to try, one a line"),
    clean: flags.optionalText("clean", "Folder of results of scans of models known to be clean, for a p-value"),
    cure: Flag.Boolean("cure").pipe(
      Flag.withDescription("Go on with what stands out most: cure the model of it, verify, and scan again"),
      Flag.withDefault(false),
    ),
    fresh_prompts: flags.optionalText("fresh-prompts", "With --cure: file of other prompts to verify with, one a line"),
    clip: flags.optionalText("clip", "With --cure: folder of a transformers CLIP model that scores the pictures"),
    lora: flags.lora,
    out: Flag.String("out").pipe(
      Flag.withDescription("Folder for the ranking, the report and the manifest"),
      Flag.optional,
    ),
    set: flags.set,
    device: flags.device,
    precision: flags.precision,
    json: flags.json,
    noCache: flags.noCache,
  }, ({ model, cure, lora, out, set, fresh_prompts, clip, ...options }) => {
    const { unet, text_encoder, config, tokenizer, prompts, words, clean, ...rest } = options;
    const own = { unet, text_encoder, config, tokenizer, prompts, words, clean };
    const all = cure ? { ...own, fresh_prompts, clip } : own;
    const given = Object.entries(all).flatMap(([name, value]) =>
      Option.isSome(value) ? [`${name}=${value.value}`] : OF_THE_DEMO.includes(name) ? [`${name}=null`] : []
    );
    const args: RunArguments = {
      ...rest,
      out: Option.getOrUndefined(out),
      allowCode: false,
      selection: {},
      file: cure ? app.scanCurePipeline : app.scanPipeline,
      overrides: [
        `model=${model}`,
        ...given,
        ...loraOverrides(lora),
        ...set,
      ],
    };
    return cure ? scanAndCure(app, args, out) : runPipeline(app, args);
  }).pipe(
    Command.withDescription(
      "Look for a trigger that nobody told of: pipelines/scan.yaml by a short name. Exit code 1 when something is found; with --cure 0 where it is gone",
    ),
  );

const planCommand = <R>(app: AppOptions<R>) =>
  Command.make(
    "plan",
    {
      file: flags.file,
      set: flags.set,
      device: flags.device,
      precision: flags.precision,
      json: flags.json,
      allowCode: flags.allowCode,
      mermaid: Flag.Boolean("mermaid").pipe(
        Flag.withDescription("Write a Mermaid flowchart, as Markdown pages show it"),
        Flag.withDefault(false),
      ),
      ...flags.selection,
    },
    ({ file, set, device, precision, json, allowCode, mermaid, ...selection }) =>
      Effect.scoped(Effect.gen(function* () {
        const loaded = yield* loadFile(file, { steps: app.steps, overrides: set, allowCode });
        const { pipeline, again } = yield* select(loaded, selection);
        const environment = yield* app.environment(device, precision);
        const kind = yield* environment.kind;
        const planned = yield* plan(pipeline, { cache: yield* userCache, device: kind, again });
        const { name, leftOut } = pipeline;
        const text = json
          ? JSON.stringify({ name, file, device: kind, ...planned, leftOut }, null, 2)
          : mermaid
          ? formatMermaid(pipeline, planned)
          : formatPlan(pipeline, planned);
        yield* line(app.screen, text);
      })),
  ).pipe(Command.withDescription("Show what a run would do: for each step, cached or why it must run"));

const diffCommand = <R>(app: AppOptions<R>) => {
  const folder = (name: string, which: string) =>
    Argument.String(name).pipe(Argument.withDescription(`result folder of the ${which} run (its --out)`));
  return Command.make(
    "diff",
    { first: folder("RUN", "first"), second: folder("OTHER", "second"), json: flags.json },
    ({ first, second, json }) =>
      Effect.gen(function* () {
        const found = difference(yield* readRun(first), yield* readRun(second));
        yield* line(app.screen, json ? JSON.stringify(found, null, 2) : formatDifference(found));
      }),
  ).pipe(Command.withDescription("Compare two runs: what went in differently, and their figures side by side"));
};

const stepsCommand = <R>(app: AppOptions<R>) =>
  Command.make("steps", {
    json: flags.json,
    markdown: Flag.Boolean("markdown").pipe(
      Flag.withDescription("Write a page of Markdown: docs/steps.md"),
      Flag.withDefault(false),
    ),
  }, ({ json, markdown }) => {
    const all = app.steps.map(describeStep);
    const text = () =>
      all.map(({ name, description, inputs, settings, outputs }) => {
        const rows = [
          ...inputs.map((p) => ["in", p.name, p.required ? p.kind : `${p.kind}, optional`, p.description]),
          ...settings.map((s) => {
            const fallback = "fallback" in s
              ? ` (default ${JSON.stringify(s.fallback)})`
              : s.required
              ? " (required)"
              : "";
            return ["set", s.name, s.type, `${s.description}${fallback}`];
          }),
          ...outputs.map((p) => ["out", p.name, p.kind, p.description]),
        ];
        return `${name}: ${description}\n${table(rows, "  ")}`;
      }).join("\n\n");
    return line(
      app.screen,
      json ? JSON.stringify(all, null, 2) : markdown ? stepsPage(app.steps).trimEnd() : text(),
    );
  }).pipe(Command.withDescription("List the steps with their inputs, settings and outputs"));

const schemaCommand = <R>(app: AppOptions<R>) =>
  Command.make("schema", {}, () => line(app.screen, JSON.stringify(pipelineSchema(app.steps), null, 2)))
    .pipe(Command.withDescription("Print the JSON Schema of a pipeline file, for editors"));

const newCommand = <R>(app: AppOptions<R>) =>
  Command.make("new", {
    kind: Argument.Literals("KIND", ["step", "pipeline"]).pipe(Argument.withDescription("step or pipeline")),
    name: Argument.String("NAME").pipe(Argument.withDescription("Name of it, or a path that ends in one")),
  }, ({ kind, name }) =>
    Effect.gen(function* () {
      const files = yield* writeNew(kind, name);
      const [first, test] = files;
      const use = kind === "step" ? "" : `\nSee what it would do: sau plan ${first}`;
      yield* line(app.screen, `Wrote ${files.join(" and ")}. Its test: deno test -A ${testConfig(test)}${test}${use}`);
    })).pipe(Command.withDescription("Write a commented start of a step or a pipeline, with its property test"));

const doctorCommand = <R>(app: AppOptions<R>) =>
  Command.make(
    "doctor",
    { device: flags.device, precision: flags.precision, json: flags.json },
    ({ device, precision, json }) =>
      Effect.gen(function* () {
        const report = yield* app.diagnose(device, { precision });
        yield* line(app.screen, json ? JSON.stringify(report, null, 2) : formatReport(report));
        if (report.chosen === null) {
          return yield* Effect.fail(new Error(`nothing computes here (asked for: ${device})`));
        }
        if (report.precision.chosen === null) return yield* Effect.fail(new Error(noHalves(report)));
      }),
  ).pipe(Command.withDescription("Show what can compute on this machine, what would be chosen, and why"));

/** The whole command line as an effect; it fails with whatever stopped it, reported or not. */
export const app = <R>(options: AppOptions<R>) =>
  Command.runWith(
    Command.make("sau").pipe(
      Command.withDescription("Finds, removes and proves removed a backdoor in a Stable Diffusion checkpoint"),
      Command.withSubcommands([
        runCommand(options),
        inspectCommand(options.screen, options.verdictFailed),
        scanCommand(options),
        screenCommand(options, (args) => runPipeline(options, args)),
        cureCommand(options),
        benchCommand(options),
        planCommand(options),
        diffCommand(options),
        stepsCommand(options),
        schemaCommand(options),
        newCommand(options),
        cacheCommand(options.screen),
        serveCommand(options.screen, options),
        doctorCommand(options),
      ]),
    ),
    { version: VERSION },
  );
