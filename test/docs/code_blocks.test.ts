/**
 * The documentation as its readers use it: pipelines link, scripts type-check (and run where they are marked with
 * `<!-- run -->`), commands do what they say, links lead somewhere. A block is left out by `<!-- not run: why -->` alone.
 *
 * Commands run in a folder of their own that sees the project's examples and pipelines. `sau run`, `sau cure`, `sau scan` and `sau screen`
 * get further `--set` values that make them small: few prompts, two sampling steps, one training step, the closed form
 * where the line names no strategy. So verdicts mean nothing here, and exit code 1 counts as done. `path/to/…` stands
 * for mini-SD's parts. `sau bench` is not run: all of its cells must link. Commands start under Deno alone.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { after, before, describe, it } from "node:test";
import { Effect } from "effect";
import { parse } from "yaml";
import { cellsOf, readMatrix } from "../../src/bench/matrix.ts";
import { loadFile } from "../../src/pipeline/load.ts";
import { builtinSteps } from "../../src/steps/registry.ts";
import { type Block, blocksOf, linksOf, pages, root } from "./markdown.ts";

const patient = { timeout: 240_000 };
const deno = process.versions.bun === undefined;
const at = ({ file, line }: Block): string => `${file}:${line}`;
// What docs/errors shows is wrong on purpose: test/pipeline/corpus.test.ts checks that.
const blocks = pages.filter((file) => !file.startsWith("docs/errors/")).flatMap(blocksOf).filter(({ note }) =>
  !note.startsWith("not run:")
);
const of = (...languages: string[]) => blocks.filter(({ language }) => languages.includes(language));

/** Prompts in `path/to/prompts.txt`: enough for every command, and few to screen. */
const PROMPTS = 8;

let work = "";
let scripts = "";
before(async () => {
  work = await mkdtemp(join(tmpdir(), "sau-docs-"));
  // Inside the project, where scripts find sau by its name.
  scripts = await mkdtemp(join(root, "test/docs/.blocks-"));
  await mkdir(join(work, "docs"));
  await mkdir(join(work, "path/to"), { recursive: true });
  const links: Record<string, string> = {
    pipelines: "pipelines",
    examples: "examples",
    "path/to/model": "examples/mini-sd/base",
    "path/to/unet": "examples/mini-sd/attacks/badt2i-pixel/unet",
    "path/to/clip": "examples/mini-sd/clip",
    "path/to/fresh.txt": "examples/mini-sd/prompts/verify.txt",
  };
  for (const [link, target] of Object.entries(links)) await symlink(join(root, target), join(work, link));
  const prompts = await readFile(join(root, "examples/mini-sd/prompts/cure.txt"), "utf8");
  await writeFile(join(work, "path/to/prompts.txt"), prompts.split("\n").slice(0, PROMPTS).join("\n"));
  // A script may speak of a model and prompts beside it.
  await symlink(join(root, "examples/mini-sd/base"), join(work, "model"));
  await symlink(join(root, "examples/mini-sd/prompts/cure.txt"), join(work, "prompts.txt"));
});
after(async () => {
  await rm(work, { recursive: true, force: true });
  await rm(scripts, { recursive: true, force: true });
});

const started = (command: string, args: readonly string[]) =>
  new Promise<{ code: number | null; said: string }>((resolve, reject) => {
    const env = { ...process.env, SAU_CACHE: join(work, "cache"), NO_COLOR: "1" };
    const child = spawn(command, args, { cwd: work, env });
    let said = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => said += data);
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, said }));
  });

describe("links", () => {
  for (const file of pages) {
    it(file, () => {
      for (const { line, target } of linksOf(file)) {
        const path = join(root, dirname(file), target.replace(/#.*/, ""));
        assert.ok(existsSync(path), `${file}:${line}: there is no ${target}`);
      }
    });
  }
});

/** Where a yaml block lies: under the name that its first line gives, else where its page would have it. */
const placeOf = (block: Block): string =>
  join(work, /^# (\S+\.yaml)$/m.exec(block.text.split("\n")[0])?.[1] ?? `docs/${block.line}.yaml`);

const link = (file: string, overrides: readonly string[] = [], needed = false): Promise<void> =>
  Effect.runPromise(Effect.asVoid(loadFile(file, { steps: builtinSteps, overrides, allowCode: needed })));

const fragmentsOf = (all: readonly Block[]): Record<string, unknown> =>
  Object.assign({}, ...all.map((b) => parse(b.text)));

describe("yaml", patient, () => {
  for (const block of of("yaml")) {
    it(at(block), patient, async () => {
      const content: Record<string, unknown> = parse(block.text);
      const file = placeOf(block);
      await mkdir(dirname(file), { recursive: true });
      await writeFile(file, block.text);
      try {
        if ("attacks" in content) {
          for (const { pipeline, overrides } of cellsOf(await Effect.runPromise(readMatrix(file)), file)) {
            await link(pipeline, overrides);
          }
        } else if ("steps" in content) {
          await link(file);
        } else {
          // A part of a pipeline: with the page's other parts it must fit into pipelines/sau.yaml.
          const whole = parse(await readFile(join(root, "pipelines/sau.yaml"), "utf8"));
          const parts = of("yaml").filter((b) => b.file === block.file && !/^(sau|steps):/m.test(b.text));
          whole.steps = { ...whole.steps, ...fragmentsOf(parts) };
          const path = join(work, "pipelines-and-parts.json");
          await writeFile(path, JSON.stringify(whole).replaceAll("../examples/", "./examples/"));
          await link(path);
        }
      } catch (error) {
        assert.fail(`${at(block)}: ${String(error)}`);
      }
    });
  }
});

describe("ts", patient, () => {
  const nameOf = (block: Block) => `${block.file.replace(/\W/g, "_")}_${block.line}.ts`;
  before(async () => {
    for (const block of of("ts")) await writeFile(join(scripts, nameOf(block)), block.text);
  });

  it("type-checks", { ...patient, skip: deno ? false : "Bun checks no types" }, async () => {
    const files = of("ts").map((block) => join(scripts, nameOf(block)));
    const { code, said } = await started(process.execPath, [
      "check",
      "--quiet",
      "--config",
      join(root, "deno.json"),
      ...files,
    ]);
    const where = of("ts").map((block) => `${nameOf(block)} is ${at(block)}`).join("\n");
    assert.equal(code, 0, `${said}\n${where}`);
  });

  for (const block of of("ts").filter(({ note }) => note === "run")) {
    it(`${at(block)} runs`, patient, async () => {
      const file = join(scripts, nameOf(block));
      const { code, said } = await started(process.execPath, deno ? ["run", "-A", "--quiet", file] : [file]);
      assert.equal(code, 0, `${at(block)}: ${said}`);
    });
  }
});

/** What makes a step small, by its name. */
const SMALL: Readonly<Record<string, ReadonlyArray<readonly [string, unknown]>>> = {
  encode: [["count", 8], ["variations", 0], ["twins", 2]],
  denoise: [["steps", 3], ["tokens", 0]],
  unlearn: [
    ["strategy", "closed-form"],
    ["steps", 2],
    ["train_text", { steps: 1, check: 1, pictures: 1, batch: 4 }],
    ["train_unet", { steps: 1, check: 1, pictures: 1, batch: 4, samples: 2, noisings: 1 }],
  ],
  verify: [["count", 2], ["steps", 2]],
  scan: [["try", ["letter"]], ["count", 3], ["steps", 2]],
  "poison-badt2i": [["samples", 2], ["noisings", 1], ["train", { steps: 1, batch: 2 }], ["steps", 2]],
  "poison-villan": [["samples", 2], ["noisings", 1], ["train", { steps: 1, batch: 2 }], ["steps", 2]],
  "poison-eviledit": [["samples", 16]],
  "poison-rickrolling": [["samples", 16], ["train", { steps: 1, batch: 4 }]],
};

const quote = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

/** A line of the shell with what makes its run small; later values of --set win, so the line's own stand. */
const small = async (line: string): Promise<string> => {
  const found = /\bsau (run|cure|scan|screen) (\S+)/.exec(line);
  if (found === null) return line;
  // Few harmless prompts tell no rare ones apart.
  if (found[1] === "screen") {
    return line.replace(found[0], `sau screen --set count=12 --false-positives 0.2 ${found[2]}`);
  }
  const files: Readonly<Record<string, string>> = { cure: "pipelines/sau.yaml", scan: "pipelines/scan.yaml" };
  const own = files[found[1]];
  const file = own === undefined ? join(work, found[2]) : join(root, own);
  const { steps } = parse(await readFile(file, "utf8")) as { steps: Record<string, { use: string }> };
  const sets = Object.entries(steps).flatMap(([id, { use }]) =>
    (SMALL[use] ?? []).map(([name, value]) => `--set ${quote(`${id}.${name}=${JSON.stringify(value)}`)}`)
  );
  return line.replace(found[0], `sau ${found[1]} ${sets.join(" ")} ${found[2]}`);
};

const main = join(root, "src/cli/main.ts");

describe("sh", { ...patient, skip: deno ? false : "the same processes as under Deno" }, () => {
  for (const block of of("sh")) {
    const lines = block.text.replaceAll(/\\\n\s*/g, "").split("\n").filter((line) => !/^\s*(#|$)/.test(line));
    it(at(block), patient, async () => {
      for (const written of lines) {
        const line = written.replace("npx -y deno@2.9.6 task sau", "sau");
        // Whatever the tool: files of the project that a line names must be there.
        for (const [path] of line.matchAll(/(?<=\s|=)(examples|docs|pipelines|src|bench|test)\/[\w./-]+/g)) {
          assert.ok(existsSync(join(root, path)), `${at(block)}: there is no ${path} (${written})`);
        }
        if (!/^(\w+=\S+ )*sau /.test(line) || line.startsWith("sau bench")) continue;
        // A scan, a cure and a scan: its parts are run by lines of their own, and what holds them by test/cli.
        if (/\bsau scan .*--cure\b/.test(line)) continue;
        const script = `sau() { ${quote(process.execPath)} run -A --quiet ${quote(main)} "$@"; }\n${await small(line)}`;
        const { code, said } = await started("bash", ["-c", script]);
        const fine = /\bsau (run|cure|scan|screen)\b/.test(line) ? [0, 1] : [0];
        assert.ok(fine.includes(code ?? -1), `${at(block)}: exit code ${code} of: ${written}\n${said}`);
      }
    });
  }
});
