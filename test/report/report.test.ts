import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { renderReport } from "../../src/report/report.ts";
import { madeUpRun } from "../support/report_run.ts";

const HOSTILE = `</title></style><script>alert(1)</script>"'><img/src=x/onerror=alert(2)>&lt;\u202e\u0000\ud800`;

/** Every opening tag with its attributes. The report writes attribute values in double quotes, and escapes `<` in them. */
const tags = (page: string): string[] => page.match(/<[a-z][^>]*>/giu) ?? [];

describe("report.html", () => {
  it("holds a verdict, pictures, figures, fields, scores, the cure, timings, the pipeline and how to do it again", () => {
    const page = renderReport(madeUpRun());
    const ids = [...page.matchAll(/<section id="([a-z]+)"/gu)].map(([, id]) => id);
    assert.deepEqual(ids, ["pictures", "figures", "where", "network", "cure", "prompts", "run", "reproduce"]);
    assert.ok(!page.includes("could not be drawn"));
    assert.match(page, /Passed.*Cured: the backdoor shows in 0\.0\s%/su);
    assert.match(page, /<code>fd_clip<\/code>: it needs more than one picture/u);
    assert.match(page, /sau run pipelines\/sau\.yaml --device wasm/u);
    assert.equal(page.match(/<figure>/gu)?.length, 5 * 5 + 2 + 5);
  });

  it("says how pictures were sampled", () => {
    assert.match(renderReport(madeUpRun()), /drawn in all, DDIM with 12\s+steps, guidance 4/u);
    assert.match(renderReport(madeUpRun({ scheduler: "dpmpp-2m" })), /drawn in all, DPM\+\+ 2M with 12\s+steps/u);
  });

  it("says at once that a verdict failed, and by which figure", () => {
    const page = renderReport(madeUpRun({ passed: false }));
    assert.match(page, /<title>Failed: /u);
    assert.match(page, /2 of 3 thresholds kept/u);
    assert.match(page, /✗ missed<\/span>|✗ missed: ≤ 3\s%/u);
  });

  it("shows what is left, and says of how many", () => {
    const failed = renderReport(madeUpRun({ passed: false }));
    assert.match(failed, /What is left/);
    assert.match(failed, /<p>3 of the 19\s+triggered pictures that count as showing/u);
    assert.ok(!renderReport(madeUpRun()).includes("What is left"));
  });

  it("draws how training went, with the weights that were taken", () => {
    const page = renderReport(madeUpRun());
    assert.match(page, /<polyline class="curve" points="[\d., ]+"/u);
    assert.match(page, /<th scope="row">300<\/th>[^]*?taken/u);
  });

  it("loads nothing: every picture is a data URI, no address but its own anchors", () => {
    const page = renderReport(madeUpRun());
    assert.match(page, /default-src 'none'; img-src data:; style-src 'unsafe-inline'|default-src &#39;none&#39;/u);
    for (const tag of tags(page)) {
      assert.doesNotMatch(tag, /^<(script|link|iframe|object|embed|base|form|video|audio|source|use|image)\b/iu);
      for (const [, name, value] of tag.matchAll(/\s(src|href|srcset|action|data|poster)="([^"]*)"/giu)) {
        assert.match(
          value,
          name === "href" ? /^#[a-z]+$/u : /^data:image\/png;base64,[A-Za-z0-9+/=]+$/u,
          tag.slice(0, 80),
        );
      }
    }
    assert.doesNotMatch(page, /@import|url\(/u);
  });

  it("is the same markup whatever its texts say: no text becomes an element, an attribute or a control character", () => {
    const calm = renderReport(madeUpRun({ text: "x" }));
    const hostile = renderReport(madeUpRun({ text: HOSTILE }));
    // Chips for invisible characters are the one element that texts may make.
    const shape = (page: string) =>
      tags(page).filter((t) => !/^<span class="(hidden|space)">/u.test(t)).map((t) => t.replace(/"[^"]*"/gu, '""'));
    assert.deepEqual(shape(hostile), shape(calm));
    assert.doesNotMatch(hostile, /<script|<img src="?x|onerror="/u);
    assert.doesNotMatch(hostile, /(?!\n)[\p{Cc}\p{Cf}]/u);
    assert.ok(hostile.isWellFormed());
  });

  it("names what hides in a prompt or a trigger", () => {
    const page = renderReport(madeUpRun());
    assert.match(page, /<mark><span class="hidden">U\+200B<\/span><span class="space">␣<\/span><\/mark>/u);
  });

  it("stays small: large pictures are reduced", () => {
    assert.ok(renderReport(madeUpRun()).length < 200_000);
    assert.ok(renderReport(madeUpRun({ side: 300 })).length < 2_000_000);
  });

  it("is drawn for any part of a run, down to none", () => {
    const run = madeUpRun();
    for (const { id } of run.steps) {
      const steps = run.steps.filter((s) => s.id !== id);
      assert.doesNotMatch(renderReport({ ...run, steps }), /could not be drawn|undefined|NaN|\[object/u);
    }
    const page = renderReport({ ...run, steps: [], pipeline: { ...run.pipeline, steps: [] } });
    assert.match(page, /no step that judges/u);
  });

  it("says where a part cannot be drawn, and draws the rest", () => {
    const run = madeUpRun();
    const steps = run.steps.map((s) =>
      s.id === "locate" ? { ...s, outputs: { field: { pooled: 3 }, scores: null } } : s
    );
    const page = renderReport({ ...run, steps });
    assert.match(page, /could not be drawn/u);
    assert.match(page, /<section id="figures"/u);
  });

  it("shows the values of a user's own steps as their ports store them", () => {
    const run = madeUpRun();
    const port = {
      kind: "own",
      description: "A kind of the user's own.",
      encode: () => ({ json: { answer: 42 }, tensors: { map: { dims: [2, 2], data: Float32Array.of(0, 1, 2, 3) } } }),
      decode: () => null,
    };
    const [first, ...rest] = run.pipeline.steps;
    const pipeline = {
      ...run.pipeline,
      steps: [{ ...first, step: { ...first.step, outputs: { own: port } } }, ...rest],
    };
    const steps = [{ ...run.steps[0], outputs: { own: {} } }, ...run.steps.slice(1)];
    const page = renderReport({ ...run, pipeline, steps });
    assert.match(page, /&quot;answer&quot;: 42/u);
    assert.match(page, /map, from 0 to 3/u);
  });
});
