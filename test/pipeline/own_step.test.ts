/** A user's own step: named by path, run where allowed, checked as the built-in ones, known by its bytes. */
import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Effect, Result } from "effect";
import { fileURLToPath } from "node:url";
import { openCache } from "../../src/pipeline/cache.ts";
import { noServices } from "../../src/pipeline/environment.ts";
import { loadFile } from "../../src/pipeline/load.ts";
import { plan } from "../../src/pipeline/plan.ts";
import { run } from "../../src/pipeline/run.ts";
import { modulesOf } from "../../src/pipeline/own_step.ts";
import { SpecError } from "../../src/steps/errors.ts";
import { withFolder } from "./helpers.ts";
import { steps } from "./steps.ts";

const mod = fileURLToPath(new URL("../../mod.ts", import.meta.url));
const ports = fileURLToPath(new URL("./steps.ts", import.meta.url));

const module = `import { defaulted, Effect, Schema, Step } from "${mod}";
import { field, number } from "${ports}";
import { add } from "./add.ts";
globalThis.codeRan = true;
export const total = Step.make("total", {
  version: 1,
  description: "Sums.",
  settings: Schema.Struct({ plus: defaulted(Schema.Finite, 0) }),
  inputs: { field },
  outputs: { sum: number },
  run: ({ field }, { plus }) => Effect.succeed({ sum: add(field.data, plus) }),
});
export const notAStep = { name: "x" };
`;
const add = "export const add = (xs: Float32Array, plus: number) => xs.reduce((a, b) => a + b, plus);\n";

const file = (use = "./steps/total.ts#total", settings = "plus: 1") =>
  `sau: 1
name: own
steps:
  in: { use: load, with: { file: n.txt } }
  sum: { use: ${use}, with: { field: "\${{ steps.in.field }}", ${settings} } }
  verdict: { use: judge, with: { sum: "\${{ steps.sum.sum }}" } }
`;

const inFolder = (text: string, body: (path: string, folder: string) => Promise<void>) =>
  withFolder(async (folder) => {
    await mkdir(join(folder, "steps"));
    await writeFile(join(folder, "steps", "total.ts"), module);
    await writeFile(join(folder, "steps", "add.ts"), add);
    await writeFile(join(folder, "n.txt"), "1\n2\n3\n");
    await writeFile(join(folder, "p.yaml"), text);
    await body(join(folder, "p.yaml"), folder);
  });

const load = (path: string, allowCode = true) => Effect.runPromise(Effect.result(loadFile(path, { steps, allowCode })));

const complaint = async (use: string, settings?: string, allowCode = true): Promise<string> => {
  let text = "";
  await inFolder(file(use, settings), async (path) => {
    const result = await load(path, allowCode);
    assert.ok(Result.isFailure(result) && result.failure instanceof SpecError, `${use} should not load`);
    text = result.failure.message;
  });
  return text;
};

describe("a step of one's own", () => {
  it("is not even read without --allow-code, and the error says how to allow it", async () => {
    Reflect.deleteProperty(globalThis, "codeRan");
    assert.match(await complaint("./steps/total.ts#total", "plus: 1", false), /p.yaml:5:15: .*\n.*\n +.*--allow-code/);
    assert.equal(Reflect.get(globalThis, "codeRan"), undefined);
  });

  it("runs between built-in ones", () =>
    inFolder(file(), async (path) => {
      const loaded = await load(path);
      assert.ok(Result.isSuccess(loaded), String(Result.isFailure(loaded) && loaded.failure.message));
      const result = await Effect.runPromise(run(loaded.success, { environment: noServices() }));
      assert.equal(result.verdict?.sentence, "the sum is 7");
    }));

  it("is checked like them: settings, ports, names", async () => {
    const use = "./steps/total.ts#total";
    assert.match(await complaint(use, "plus: many"), /plus is "many" \[wrong-value\]\n +expected: a number/);
    assert.match(await complaint(use, "pluss: 1"), /no input or setting "pluss"[^]*did you mean "plus"\?/);
    assert.match(await complaint(use, `field2: "\${{ steps.in.field }}"`), /has no input or setting "field2"/);
  });

  it("is explained when it is not there, or no step", async () => {
    assert.match(await complaint("./steps/total.ts#totl"), /exports no "totl"[^]*did you mean "total"\?/);
    assert.match(await complaint("./steps/total.ts#notAStep"), /is not a step: its version[^]*steps: total/);
    assert.match(await complaint("./steps/none.ts#total"), /could not be loaded: no such file/);
    assert.match(await complaint("./steps/total.ts"), /which export/);
  });

  it("comes from a local path alone, never from the network or a package", async () => {
    for (
      const use of ["https://example.org/x.ts#a", "npm:evil#a", "/etc/x.ts#a", "evil#a", "file:///x.ts#a", "data:x#a"]
    ) {
      assert.match(await complaint(use), /does not name a module beside the pipeline file/, use);
    }
    assert.match(await complaint("./steps/total.py#a"), /no TypeScript or JavaScript module/);
  });

  it("runs again when its module, or one that it imports, has changed; plan names the file", () =>
    inFolder(file(), async (path, folder) => {
      const cache = openCache(join(folder, "cache"));
      const reasons = async () => {
        const loaded = await load(path);
        assert.ok(Result.isSuccess(loaded));
        const planned = await Effect.runPromise(plan(loaded.success, { cache, device: "none" }));
        return Object.fromEntries(planned.steps.map(({ id, reason }) => [id, reason]));
      };
      const loaded = await load(path);
      assert.ok(Result.isSuccess(loaded));
      await Effect.runPromise(run(loaded.success, { environment: noServices(), cache }));
      assert.equal((await reasons()).sum, "cached");
      await writeFile(join(folder, "steps", "add.ts"), `${add}// another line\n`);
      const after = await reasons();
      assert.equal(after.in, "cached");
      assert.match(after.sum, /add.ts has changed/);
    }));

  it("consists of its local imports, and not of sau itself", () =>
    inFolder(file(), async (_, folder) => {
      const found = await modulesOf(join(folder, "steps", "total.ts"));
      assert.ok(found.includes(join(folder, "steps", "add.ts")));
      assert.ok(!found.includes(mod));
    }));
});
