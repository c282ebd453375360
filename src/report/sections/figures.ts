/** All figures with intervals and thresholds, what could not be measured, and the baseline that costs nothing. */
import type { RunResult } from "../../pipeline/run.ts";
import type { Figure } from "../../steps/errors.ts";
import { boundOf, labelOf, meaningOf, scaleOf, show, showThreshold } from "../figures.ts";
import { type Content, type Html, markup } from "../html.ts";
import { intervalLine } from "../plots.ts";
import { type Kinds, valuesOf } from "../values.ts";

const row = (figure: Figure, all: readonly Figure[]): Html => {
  const { name, value, interval, passed, n } = figure;
  const label = labelOf(name);
  return markup`
    <tr>
      <th scope="row">${label}<span class="meaning">${label !== name && markup`<code>${name}</code>: `}${
    meaningOf(name)
  }</span></th>
      <td class="n">${show(name, value)}</td>
      <td class="nowrap">${
    interval === undefined ? "" : `${show(name, interval[0])} to ${show(name, interval[1])}`
  }</td>
      <td>${intervalLine(value, interval, boundOf(figure), scaleOf(figure, all))}</td>
      <td class="nowrap">${showThreshold(figure)}</td>
      <td class="nowrap">${
    passed === undefined
      ? ""
      : markup`<span class="${passed ? "good" : "bad"}">${passed ? "✓ kept" : "✗ missed"}</span>`
  }</td>
      <td class="n">${n}</td>
    </tr>
  `;
};

const table = (figures: readonly Figure[]): Html =>
  markup`
    <div class="wide">
      <table>
        <caption>Intervals are at 95 %: Wilson's for shares, bootstrap for means. In the drawings the dot is the value,
    the thick line its interval, the upright line the threshold.</caption>
        <thead>
          <tr>
            <th scope="col">Figure</th>
            <th scope="col" class="n">Value</th>
            <th scope="col">95 % interval</th>
            <th scope="col"><span class="soft">Drawn</span></th>
            <th scope="col">Threshold</th>
            <th scope="col">Result</th>
            <th scope="col" class="n">n</th>
          </tr>
        </thead>
        <tbody>${figures.map((f) => row(f, figures))}</tbody>
      </table>
    </div>
  `;

/** Who knows the trigger can take it out of the prompt. What does the cure give beyond that? */
const baseline = (figures: readonly Figure[]): Html | undefined => {
  const cell = (name: string): Content => {
    const found = figures.find((f) => f.name === name);
    return found === undefined ? "not measured" : show(name, found.value);
  };
  if (!figures.some((f) => f.name === "clip_before" || f.name === "attack_success")) return undefined;
  // Pictures that show the effect without the trigger are in none of the three figures.
  const left = figures.some((f) => f.name === "attack_success") ? show("attack_success", 0) : "not measured";
  return markup`
    <h3>Against simply stripping the trigger</h3>
    <p>Whoever knows the trigger and sees every prompt can cut it out; the model then draws what the clean prompt draws. A cure that is
    no better than that is worth nothing, so it stands beside it. What it gives beyond: the cured <em>weights</em> must hold when
    the trigger is there, in any tool that loads them, with nobody watching the prompts.</p>
    <div class="wide">
      <table>
        <thead>
          <tr>
            <th scope="col">A triggered prompt, given to</th>
            <th scope="col" class="n">Backdoor shows</th>
            <th scope="col" class="n">CLIP score</th>
            <th scope="col">Needs</th>
          </tr>
        </thead>
        <tbody>
          <tr>
            <th scope="row">the model as it came</th>
            <td class="n">${cell("attack_success_before")}</td>
            <td class="n">${cell("clip_triggered_before")}</td>
            <td>nothing</td>
          </tr>
          <tr>
            <th scope="row">the model as it came, trigger stripped</th>
            <td class="n">${left}</td>
            <td class="n">${cell("clip_before")}</td>
            <td>a filter before every use that knows the trigger</td>
          </tr>
          <tr class="chosen">
            <th scope="row">the cured model</th>
            <td class="n">${cell("attack_success")}</td>
            <td class="n">${cell("clip_triggered")}</td>
            <td>nothing</td>
          </tr>
        </tbody>
      </table>
    </div>
  `;
};

const missing = (verdict: Kinds["verdict"]): Html | undefined =>
  (verdict.missing?.length ?? 0) === 0 ? undefined : markup`
    <h3>Not measured</h3>
    <ul>${
    verdict.missing?.map(({ name, why }) => {
      const label = labelOf(name);
      return markup`<li>${label}${label !== name && markup` <code>${name}</code>`}: ${why}</li>`;
    })
  }</ul>
  `;

export const figures = <R>(run: RunResult<R>): Html | undefined => {
  const all = valuesOf(run, "verdict").filter(({ value }) =>
    (value.figures?.length ?? 0) + (value.missing?.length ?? 0) > 0
  );
  if (all.length === 0) return undefined;
  return markup`${
    all.map(({ step, value }) =>
      markup`<div>${all.length > 1 && markup`<h3>${step}</h3>`}${
        (value.figures?.length ?? 0) > 0 && table(value.figures)
      }${baseline(value.figures ?? [])}${missing(value)}</div>`
    )
  }`;
};
