/** The top of the page: passed or not, in a sentence, with the figures that matter most and what was examined. */
import type { RunResult } from "../../pipeline/run.ts";
import type { Figure } from "../../steps/errors.ts";
import { labelOf, show, showThreshold } from "../figures.ts";
import { type Content, type Html, markup } from "../html.ts";
import { count, duration } from "../numbers.ts";
import { changed, spelled } from "../text.ts";
import { type Kinds, valuesOf } from "../values.ts";

/** The figures at the top, in this order. */
const HEADLINES = ["attack_success", "trigger_removal", "clip", "clean_cosine", "clean_ssim", "located_iou"];

const CHECK = markup`<path d="M6.5 12.5l3.6 3.6 7.4-8" fill="none" stroke="currentColor" stroke-width="2.2" />`;
const CROSS = markup`<path d="M8 8l8 8M16 8l-8 8" fill="none" stroke="currentColor" stroke-width="2.2" />`;

export const mark = (passed: boolean): Html =>
  markup`
    <svg viewBox="0 0 24 24"
      aria-hidden="true"><circle cx="12" cy="12" r="10.6" fill="none" stroke="currentColor" stroke-width="1.8"/>${
    passed ? CHECK : CROSS
  }</svg>
  `;

/** The 3 or 4 figures to show large: what missed its threshold first. */
export const headlines = (figures: readonly Figure[]): Figure[] => {
  const missed = figures.filter((f) => f.passed === false);
  const known = HEADLINES.flatMap((name) => figures.filter((f) => f.name === name));
  return [...new Set([...missed, ...known, ...(known.length === 0 ? figures : [])])].slice(0, 4);
};

const headline = (figure: Figure, figures: readonly Figure[]): Html => {
  const { name, value, passed } = figure;
  const before = figures.find((f) => f.name === `${name}_before`);
  return markup`<li><div class="name">${labelOf(name)}</div><div class="value">${
    before !== undefined && markup`<small>${show(name, before.value)} →</small> `
  }${show(name, value)}</div>${
    passed !== undefined &&
    markup`<div class="rule ${passed ? "good" : "bad"}">${passed ? "✓ kept" : "✗ missed"}: ${
      showThreshold(figure)
    }</div>`
  }</li>`;
};

const judgement = (verdict: Kinds["verdict"]): Html => {
  const figures = verdict.figures ?? [];
  const bound = figures.filter((f) => f.passed !== undefined);
  const kept = bound.filter((f) => f.passed).length;
  return markup`<p class="result ${verdict.passed ? "good" : "bad"}">${mark(verdict.passed)}${
    verdict.passed ? "Passed" : "Failed"
  }</p>
<h1>${verdict.sentence.replaceAll(" %", "\u00a0%")}</h1>
<p class="soft small">${
    bound.length === 0
      ? "No figure had a threshold to keep, so none could be missed."
      : `${kept} of ${count(bound.length, "threshold")} kept.`
  }</p>
<ul class="heads">${headlines(figures).map((f) => headline(f, figures))}</ul>`;
};

const facts = <R>(run: RunResult<R>): Content => {
  const text = valuesOf(run, "text").at(0)?.value;
  const cached = run.steps.filter((s) => s.cached).length;
  const { device, started, seconds, pipeline } = run.manifest;
  const rows: [string, Content][] = [["Pipeline", [
    pipeline.name,
    pipeline.file !== "" && markup` <code>${pipeline.file}</code>`,
  ]]];
  if (text !== undefined) {
    const { bundle } = text.model;
    const swapped = Object.entries(bundle.opened?.replace ?? {});
    const { trigger, prompts } = text;
    const where = trigger.place === "prefix"
      ? "before the prompt"
      : trigger.place === "suffix"
      ? "behind the prompt"
      : markup`in place of <mark>${spelled(trigger.of ?? "")}</mark>`;
    rows.push(
      ["Model", [
        markup`<code>${bundle.root.path}</code>`,
        swapped.map(([name, path]) => markup`<br>with ${name} from <code>${path}</code>`),
      ]],
      ["Trigger", [
        markup`<mark class="mono">${spelled(trigger.text)}</mark> `,
        where,
        trigger.beside !== undefined && markup`, beside <mark>${spelled(trigger.beside)}</mark>`,
      ]],
    );
    if (prompts.length > 0) rows.push(["For example", changed(prompts[0].prompt, prompts[0].triggered.text)]);
  }
  rows.push(["Run", [
    markup`<time datetime="${started}">${started.replace("T", " ").replace(/\.\d+Z$/u, " UTC")}</time>`,
    `, ${duration(seconds)} on ${device.kind}`,
    cached > 0 && `; ${cached} of ${count(run.steps.length, "step")} came from the cache`,
  ]]);
  return markup`<dl class="facts">${
    rows.map(([term, value]) =>
      markup`
        <dt>${term}</dt>
        <dd>${value}</dd>
      `
    )
  }</dl>`;
};

/** Shown above everything, also when nothing was judged. */
export const verdictHead = <R>(run: RunResult<R>): Html => {
  const verdicts = valuesOf(run, "verdict").map((v) => v.value);
  return markup`<header>
<p class="over"><strong>sau</strong><span>${run.pipeline.name}</span></p>
${
    verdicts.length === 0
      ? markup`
        <h1>${run.pipeline.name}</h1>
        <p class="soft">This pipeline holds no step that judges, so there is no verdict.</p>
      `
      : verdicts.map(judgement)
  }
${facts(run)}
</header>`;
};
