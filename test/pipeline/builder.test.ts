/** Pipelines built in TypeScript: what does not fit does not compile, and script and file decode to one thing. */
import assert from "node:assert/strict";
import { Effect } from "effect";
import fc from "fast-check";
import { describe, it } from "node:test";
import { stringify } from "yaml";
import { Output, pipeline } from "../../src/pipeline/builder.ts";
import { loadSpec, loadText } from "../../src/pipeline/load.ts";
import { FieldPort, type Mask } from "../../src/steps/ports.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
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
