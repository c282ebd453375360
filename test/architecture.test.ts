import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";

const src = fileURLToPath(new URL("../src/", import.meta.url));

/** What each folder may import, as ARCHITECTURE.md's table says. */
const allowed: Readonly<Record<string, readonly string[]>> = {
  tensor: [],
  graph: ["tensor"],
  models: ["graph", "tensor"],
  mask: ["tensor"],
  metrics: ["tensor"],
  unlearn: ["tensor"],
  runtime: ["graph", "tensor"],
  diffusion: ["runtime", "metrics", "models", "mask", "graph", "tensor"],
  steps: ["diffusion", "unlearn", "metrics", "mask", "models", "runtime", "graph", "tensor"],
  pipeline: ["steps", "runtime", "tensor"],
  report: ["pipeline", "steps", "runtime", "diffusion", "metrics", "mask", "tensor"],
  testing: ["steps", "diffusion", "runtime", "mask", "graph", "tensor"],
  bench: ["report", "pipeline", "steps", "metrics", "mask"],
  serve: ["report", "pipeline", "steps", "diffusion", "runtime", "tensor"],
  cli: ["serve", "bench", "report", "pipeline", "steps", "diffusion", "runtime", "tensor"],
};

/** Folders whose arithmetic is plain functions. */
const pure = ["tensor", "graph", "models", "mask", "metrics", "unlearn"];

const files = readdirSync(src, { recursive: true, encoding: "utf8" }).filter((f) => f.endsWith(".ts"));
const sourceOf = (file: string) => readFileSync(join(src, file), "utf8");
const importsOf = (file: string) => [...sourceOf(file).matchAll(/(?:from|import\()\s*"([^"]+)"/g)].map((m) => m[1]);
const folderOf = (file: string) => file.split(/[\\/]/)[0];

describe("architecture", () => {
  it("dependencies point one way", () => {
    const wrong = files.flatMap((file) =>
      importsOf(file).filter((to) => to.startsWith(".")).flatMap((to) => {
        const target = folderOf(relative(src, resolve(dirname(join(src, file)), to)));
        const from = folderOf(file);
        return target === from || target === ".." || allowed[from]?.includes(target) ? [] : [`${file} imports ${to}`];
      })
    );
    assert.deepEqual(wrong, []);
  });

  it("the arithmetic is free of effect", () => {
    const wrong = files.filter((f) =>
      pure.includes(folderOf(f)) && importsOf(f).some((to) => /^(effect|@effect)(\/|$)/.test(to))
    );
    assert.deepEqual(wrong, []);
  });

  it("src is written for both runtimes: no Deno.*, no Bun.*", () => {
    const wrong = files.filter((f) =>
      /(^|[^\w.$"'`])(Deno|Bun)\.\w/m.test(sourceOf(f).replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, ""))
    );
    assert.deepEqual(wrong, []);
  });

  it("ARCHITECTURE.md names every folder", () => {
    const text = readFileSync(join(src, "../ARCHITECTURE.md"), "utf8");
    for (const folder of new Set(files.map(folderOf))) assert.ok(text.includes(`\`src/${folder}\``), folder);
  });
});
