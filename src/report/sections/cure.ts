/** The cure: what was done to the weights, why, and what else was tried. */
import type { RunResult } from "../../pipeline/run.ts";
import type { Account, Candidate } from "../../steps/ports.ts";
import { type Html, markup } from "../html.ts";
import { count, percent, plain } from "../numbers.ts";
import { bars, scatter } from "../plots.ts";
import { valuesOf } from "../values.ts";
import { shortKey } from "./network.ts";

const isChosen = ({ chosen }: Account, c: Candidate): boolean => chosen !== undefined && chosen.name === c.name;

const x = (value: number | undefined): string =>
  value === undefined ? "not tried" : `×${plain(Number(value.toPrecision(3)))}`;

const candidates = (account: Account): Html | undefined => {
  const all = account.candidates ?? [];
  if (all.length === 0) return undefined;
  return markup`
    <div class="wide">
      <table>
        <caption>${count(all.length, "candidate")}. The residuals say in advance how good a closed form can be;
    trigger and drift were seen in the predicted noise, on prompts held back from the fit; the best trade-offs were then drawn with.</caption>
        <thead>
          <tr>
            <th scope="col">Candidate</th>
            <th scope="col" class="n">Trigger left<br>in the fit</th>
            <th scope="col" class="n">Kept text lost<br>in the fit</th>
            <th scope="col" class="n">Trigger's effect,<br>harmless word = ×1</th>
            <th scope="col" class="n">Drift of<br>other prompts</th>
            <th scope="col" class="n">Pictures<br>beyond harmless</th>
            <th scope="col" class="n">Pictures<br>that show it</th>
            <th scope="col" class="n">Triggered pictures,<br>harmless word = ×1</th>
            <th scope="col" class="n">Drift of<br>clean pictures</th>
            <th scope="col"></th>
          </tr>
        </thead>
        <tbody>${
    all.map((c) =>
      markup`
            <tr class="${isChosen(account, c) && "chosen"}">
              <th scope="row">${c.name}</th>
              <td class="n">${percent(c.residual)}</td>
              <td class="n">${percent(c.keepResidual)}</td>
              <td class="n">${x(c.trigger)}</td>
              <td class="n">${c.drift === undefined ? "not tried" : percent(c.drift)}</td>
              <td class="n">${c.drawn === undefined ? "–" : percent(c.drawn.outside)}</td>
              <td class="n">${c.drawn === undefined ? "–" : percent(c.drawn.shown)}</td>
              <td class="n">${c.drawn === undefined ? "–" : x(c.drawn.left)}</td>
              <td class="n">${c.drawn === undefined ? "–" : percent(c.drawn.drift)}</td>
              <td>${isChosen(account, c) && "chosen"}</td>
              </tr>
          `
    )
  }</tbody>
      </table>
    </div>
  `;
};

const plot = (account: Account): Html | undefined => {
  const points = (account.candidates ?? []).flatMap((c) =>
    c.trigger === undefined || c.drift === undefined ? [] : [{
      x: c.drift,
      y: c.trigger,
      label: `${c.name}: trigger ${x(c.trigger)}, drift ${percent(c.drift)}`,
      chosen: isChosen(account, c),
    }]
  );
  if (points.length < 2) return undefined;
  const before = account.before?.trigger;
  return markup`${
    scatter(points, {
      title: "Candidates: what is left of the trigger against how far other prompts drift",
      yLabel: "trigger's effect left",
      xLabel: "drift of other prompts, of what a harmless word moves →",
      xText: (v) => `${plain(100 * v)} %`,
      yText: (v) => `×${plain(v)}`,
      levels: [
        { y: 1, label: "a harmless word" },
        ...(before === undefined ? [] : [{ y: before, label: `before the cure ${x(before)}` }]),
      ],
    })
  }<p class="soft small">Better is lower and further left.</p>`;
};

/** Points of the loss curve; losses of neighbouring steps are averaged. */
const CURVE = 120;

const training = ({ training: run }: Account): Html | undefined => {
  if (run === undefined || run.losses.length < 2) return undefined;
  const width = Math.ceil(run.losses.length / CURVE);
  const mean = (from: number, to: number) => run.losses.slice(from, to).reduce((a, b) => a + b, 0) / (to - from);
  const line = Array.from({ length: Math.ceil(run.losses.length / width) }, (_, i) => {
    const end = Math.min((i + 1) * width, run.losses.length);
    return { x: end, y: mean(i * width, end) };
  });
  const points = run.checks.map((c) => ({
    x: c.step,
    y: c.step === 0 ? run.losses[0] : mean(Math.max(0, c.step - width), c.step),
    label: `step ${c.step}: ${
      percent(c.outside)
    } of triggered pictures beyond harmless words, clean pictures moved by ${percent(c.drift)}`,
    chosen: c.step === run.taken,
  }));
  return markup`${
    scatter(points, {
      title: "Training: the loss, and the checks by drawing held-back prompts",
      yLabel: "loss",
      xLabel: "step →",
      xText: (v) => plain(v),
      yText: (v) => v.toPrecision(1),
      levels: [],
      line,
    })
  }<table>
      <caption>What the held-back prompts drew at each check. A step took ${run.memory}.</caption>
      <thead>
        <tr>
          <th scope="col">Step</th>
          <th scope="col" class="n">Pictures<br>beyond harmless</th>
          <th scope="col" class="n">Pictures<br>that show it</th>
          <th scope="col" class="n">Triggered pictures,<br>harmless word = ×1</th>
          <th scope="col" class="n">Drift of<br>clean pictures</th>
          <th scope="col"></th>
        </tr>
      </thead>
      <tbody>${
    run.checks.map((c) =>
      markup`
        <tr class="${c.step === run.taken && "chosen"}">
          <th scope="row">${String(c.step)}</th>
          <td class="n">${percent(c.outside)}</td>
          <td class="n">${percent(c.shown)}</td>
          <td class="n">${x(c.left)}</td>
          <td class="n">${percent(c.drift)}</td>
          <td>${c.step === run.taken && "taken"}</td>
          </tr>
      `
    )
  }</tbody>
    </table>`;
};

const weights = (account: Account): Html | undefined => {
  const all = account.weights ?? [];
  if (all.length === 0) return markup`<p class="soft">No weight was changed.</p>`;
  return markup`<h3>Change of each weight</h3>${
    bars(
      all.map(({ key, change }) => ({
        label: markup`<span title="${key}">${shortKey(key)}</span>`,
        value: change,
        text: percent(change),
      })),
      markup`‖W′ − W‖ / ‖W‖ of the ${
        count(all.length, "changed weight")
      }; k and v are the projections through which text enters a
cross-attention layer. No other weight differs.`,
      ["Weight", "Relative change"],
    )
  }`;
};

const draw = (account: Account): Html =>
  markup`<p><strong>${account.strategy}.</strong> ${account.why}</p>${
    account.text !== undefined &&
    markup`
      <p class="soft small">In the text encoder, the trigger moves the embeddings ${
      plain(account.text.shift)
    } times as far as harmless words do, and triggered prompts differ from one another ${
      plain(account.text.spread)
    } times as much as with harmless words (near 0: all are read as one prompt).</p>
    `
  }${plot(account)}${candidates(account)}${training(account)}${weights(account)}`;

export const cure = <R>(run: RunResult<R>): Html | undefined => {
  const all = valuesOf(run, "account");
  if (all.length === 0) return undefined;
  return markup`${
    all.map(({ step, value }) => markup`<div>${all.length > 1 && markup`<h3>${step}</h3>`}${draw(value)}</div>`)
  }`;
};
