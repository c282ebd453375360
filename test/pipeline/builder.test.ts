/** Pipelines built in TypeScript: what does not fit does not compile, and script and file decode to one thing. */
import assert from "node:assert/strict";
import { Effect } from "effect";
import fc from "fast-check";
import { describe, it } from "node:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "yaml";
import { Output, pipeline } from "../../src/pipeline/builder.ts";
import { each, sweep } from "../../src/pipeline/given.ts";
import { loadSpec, loadText } from "../../src/pipeline/load.ts";
import { FieldPort, type Mask } from "../../src/steps/ports.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { withFolder } from "./helpers.ts";
import { judge, load, scale, steps } from "./steps.ts";

const linked = ({ steps, outputs }: Effect.Success<ReturnType<typeof loadSpec>>) => ({
  steps: steps.map(({ id, step, encoded, inputs }) => ({
    id,
    use: step.name,
    encoded,
    inputs: Object.entries(inputs).map(([name, wire]) => [name, wire.step, wire.output]),
  })),
  outputs: Object.entries(outputs).map(([name, wire]) => [name, wire.step, wire.output]),
});

describe("a pipeline built in TypeScript", () => {
  it("links as the file of the same content does, whatever it is made of", async () => {
    const link = fc.record({
      // JSON has no −0.
      by: fc.float({ noNaN: true, noDefaultInfinity: true }).map((x) => x + 0),
      mode: fc.option(fc.constantFrom("plain" as const, "absolute" as const), { nil: undefined }),
      from: fc.nat(20),
      offset: fc.boolean(),
      note: fc.string().filter((text) => !text.includes("${{")),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(link, { minLength: 1, maxLength: 8 }), async (links) => {
        const p = pipeline("built");
        const fields: Output<Tensor>[] = [p.step("in", load, { file: "n.txt" }).field];
        const sums: Output<number>[] = [];
        for (const [i, { by, mode, from, offset, note }] of links.entries()) {
          const { field, sum } = p.step(`s${i}`, scale, {
            field: fields[from % fields.length],
            by,
            note,
            ...(mode === undefined ? {} : { mode }),
            ...(offset && sums.length > 0 ? { offset: sums[from % sums.length] } : {}),
          });
          fields.push(field);
          sums.push(sum);
        }
        p.output("verdict", p.step("verdict", judge, { sum: sums[sums.length - 1] }).verdict);
        const options = { steps, folder: "/folder" };
        const script = await Effect.runPromise(loadSpec(p.spec, options));
        for (const text of [stringify(p.spec), JSON.stringify(p.spec)]) {
          const file = await Effect.runPromise(loadText(text, { ...options, file: "p.yaml" }));
          assert.deepEqual(linked(file), linked(script));
        }
      }),
      { numRuns: 60 },
    );
  });

  it("has params, sweeps and conditions that mean what they mean in a file", async () => {
    const built = fc.record({
      by: fc.integer({ min: -5, max: 5 }),
      bys: fc.uniqueArray(fc.integer({ min: -5, max: 5 }), { minLength: 1, maxLength: 3 }),
      modes: fc.uniqueArray(fc.constantFrom("plain" as const, "absolute" as const), { minLength: 1 }),
      which: fc.constantFrom("matrix", "param", "foreach"),
      full: fc.boolean(),
      override: fc.option(fc.integer({ min: -5, max: 5 }), { nil: undefined }),
    });
    await fc.assert(
      fc.asyncProperty(built, async ({ by, bys, modes, which, full, override }) => {
        const p = pipeline("built");
        const one = p.param("by", { type: "number", default: by, description: "a factor" });
        const many = p.param<readonly number[]>("many", { type: "array", default: bys });
        const kind = p.param("kind", { type: "string", default: full ? "full" : "part" });
        const { field } = p.step("in", load, { file: "n.txt" });
        const first = p.step("first", scale, { field, by: one });
        const swept = p.step("swept", scale, {
          field: first.field,
          by: which === "matrix" ? sweep("by", bys) : which === "param" ? sweep("by", many) : each(bys),
          ...(which === "foreach" ? {} : { mode: sweep("mode", modes) }),
        });
        p.step("extra", scale, { field: swept.field }, { if: kind.is("full") });
        p.output("field", swept.field);
        const options = { steps, folder: "/folder", overrides: override === undefined ? [] : [`by=${override}`] };
        const script = await Effect.runPromise(loadSpec(p.spec, options));
        for (const text of [stringify(p.spec), JSON.stringify(p.spec)]) {
          const file = await Effect.runPromise(loadText(text, { ...options, file: "p.yaml" }));
          assert.deepEqual(linked(file), linked(script));
        }
        const made = script.steps.filter(({ id }) => id.startsWith("swept"));
        assert.equal(made.length, which === "foreach" ? bys.length : bys.length * modes.length);
        assert.equal(script.steps.filter(({ id }) => id.startsWith("extra")).length, full ? made.length : 0);
        const { by: given } = script.steps.find(({ id }) => id === "first")!.encoded as { by: number };
        assert.equal(given, override ?? by);
      }),
      { numRuns: 40 },
    );
  });

  it("takes another pipeline file in the place of a step", () =>
    withFolder(async (folder) => {
      const inner = pipeline("inner");
      const by = inner.param("by", { type: "number", default: 2 });
      const { field: read } = inner.step("in", load, { file: "n.txt" });
      inner.output("field", inner.step("twice", scale, { field: read, by }).field);
      writeFileSync(join(folder, "inner.yaml"), stringify(inner.spec));
      const p = pipeline("outer");
      const used = p.use("part", "./inner.yaml", { by: 3 }, { field: scale.outputs.field });
      p.output("sum", p.step("sum", scale, { field: used.field }).sum);
      const { steps: made } = await Effect.runPromise(loadSpec(p.spec, { steps, folder }));
      assert.deepEqual(made.map(({ id }) => id), ["part-in", "part-twice", "sum"]);
      // @ts-expect-error an output of another kind than the one that was said
      p.step("judge", judge, { sum: used.field });
    }));

  it("does not compile where params and sweeps do not fit", () => {
    const p = pipeline("wrong");
    const { field } = p.step("in", load, { file: "n.txt" });
    const [text, number] = [p.param("text", { type: "string" }), p.param("number", { type: "number", default: 1 })];
    // @ts-expect-error a text where a number belongs
    p.step("a", scale, { field, by: text });
    // @ts-expect-error a number where a text belongs
    p.step("b", scale, { field, note: number });
    // @ts-expect-error any text where one of some words belongs
    p.step("c", scale, { field, mode: text });
    p.step("d", scale, { field, mode: p.param<"plain" | "absolute">("mode", { type: "string" }) });
    // @ts-expect-error texts where numbers belong
    p.step("e", scale, { field, by: sweep("by", ["one", "two"]) });
    // @ts-expect-error a default of another type
    p.param("wrong", { type: "integer", default: "one" });
    // @ts-expect-error a type that there is not
    p.param("wronger", { type: "int" });
    // @ts-expect-error a condition on a number
    p.step("f", scale, { field }, { if: number });
    // @ts-expect-error a comparison with a value of another type
    p.step("g", scale, { field }, { if: number.is("one") });
    // @ts-expect-error a sweep where another step's output belongs
    p.step("h", scale, { field: sweep("field", [1, 2]) });
    assert.throws(() => p.param("text", { type: "string" }), /has a param "text" already/);
    assert.equal(text.is("x".repeat(200)).text, `\${{ params.text }} == "${"x".repeat(200)}"`, "whole, however long");
    const twice = { field, by: sweep("x", [1, 2]), note: sweep("x", ["a"]) };
    assert.throws(() => p.step("i", scale, twice), /step "i" is swept over two lists called "x"/);
  });

  it("does not compile where ports or settings do not fit", () => {
    const p = pipeline("wrong");
    const { field } = p.step("in", load, { file: "n.txt" });
    const { sum } = p.step("one", scale, { field });
    // @ts-expect-error an input that is missing
    p.step("a", scale, {});
    // @ts-expect-error a number where a field belongs
    p.step("b", scale, { field: sum });
    // @ts-expect-error a field where a number belongs
    p.step("c", judge, { sum: field });
    // @ts-expect-error a value where another step's output belongs
    p.step("d", judge, { sum: 3 });
    const narrower = new Output("in", "field", FieldPort);
    // @ts-expect-error a field of the latents, though it has all that a mask has
    const mask: Output<Mask> = narrower;
    assert.equal(mask.reference, "${{ steps.in.field }}");
    // @ts-expect-error a setting of another type
    p.step("e", scale, { field, by: "two" });
    // @ts-expect-error a setting that the step does not have
    p.step("f", scale, { field, bye: 2 });
    // @ts-expect-error a setting that is missing
    p.step("g", load, {});
    // @ts-expect-error an output that the step does not have
    assert.equal(p.step("h", scale, { field }).total, undefined);
    assert.throws(() => p.step("one", scale, { field }), /has a step "one" already/);
  });
});
