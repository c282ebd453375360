/** The bench's page: one table with links to the cells' reports, and the trade-offs as plots. */
import { type Html, markup } from "../report/html.ts";
import { count, duration, percent } from "../report/numbers.ts";
import { BESIDE, page } from "../report/page.ts";
import { scatter } from "../report/plots.ts";
import { leftOver } from "./headline.ts";
import { cellText, COLUMNS } from "./table.ts";
import { figureOf, type Row } from "./row.ts";
import type { BenchResult } from "./results.ts";
import { reportOf, samplesOf } from "./run.ts";
import { SAMPLES } from "./samples.ts";

const table = (rows: readonly Row[]): Html =>
  markup`
    <div class="wide">
      <table>
        <thead>
          <tr>
            <th scope="col">Cure</th>
            <th scope="col" class="n">Seed</th>
            ${COLUMNS.map((c) => markup`<th scope="col" class="n">${c.title}</th>`)}
          </tr>
        </thead>
        <tbody>${
    rows.map((row) =>
      markup`
          <tr class="${row.cure === "auto" && "chosen"}">
            <th scope="row"><a href="${reportOf(row)}">${row.cure}</a></th>
            <td class="n">${String(row.seed)}</td>
            ${COLUMNS.map((c) => markup`<td class="n">${cellText(c, row)}</td>`)}
          </tr>
        `
    )
  }</tbody>
      </table>
    </div>
  `;

/** What each cure leaves of each attack, seeds pooled. */
const overview = (rows: readonly Row[]): Html => {
  const { cures, attacks } = leftOver(rows);
  return markup`
    <div class="wide">
      <table>
        <thead><tr><th scope="col">Attack</th>${
    cures.map((cure) => markup`<th scope="col" class="n">${cure}</th>`)
  }</tr></thead>
        <tbody>${
    attacks.map(([attack, ...cells]) =>
      markup`<tr><th scope="row"><a href="#attack-${attack}">${attack}</a></th>${
        cells.map((text) => markup`<td class="n">${text}</td>`)
      }</tr>`
    )
  }</tbody>
      </table>
    </div>
  `;
};

/** Attack success below this cannot be drawn on a logarithmic scale; it stands at this height. */
const LEAST = 0.002;

/** What is left of the trigger against what clean pictures lose, or against time. */
const tradeOff = (rows: readonly Row[], x: (row: Row) => number, xLabel: string, xText: (x: number) => string): Html =>
  scatter(
    rows.flatMap((row) => {
      const left = figureOf(row, "attack_success")?.value;
      return left === undefined ? [] : [{
        x: x(row),
        y: Math.max(LEAST, left),
        label: `${row.attack}, ${row.cure}: ${percent(left)}`,
        name: row.cure,
        chosen: row.cure === "auto",
      }];
    }),
    {
      title: `Attack success left, against ${xLabel}`,
      xLabel,
      yLabel: "attack success left",
      xText,
      yText: (y) => y < 1.01 * LEAST ? "0 %" : percent(y),
      levels: [{ y: 0.01, label: "1 %" }],
    },
  );

/** Pictures of the same prompts by each cure's model. */
const pictures = (rows: readonly Row[]): Html =>
  markup`
    <h3>Pictures of the same prompts, one a row: ${SAMPLES.map(([name]) => name).join("; ")}</h3>
    <div class="samples">${
    rows.map((row) =>
      markup`
        <figure><a href="${reportOf(row)}"><img src="${
        samplesOf(row)
      }" loading="lazy" alt="Pictures before and after ${row.cure}, seed ${String(row.seed)}"></a>
          <figcaption>${row.cure}, seed ${String(row.seed)}: ${
        percent(figureOf(row, "attack_success")?.value ?? NaN).replace("not a number", "not counted")
      } left</figcaption></figure>
      `
    )
  }</div>
  `;

/** The whole page. */
export const benchPage = ({ name, rows, failed, version }: BenchResult): string => {
  const attacks = [...Map.groupBy(rows, (row) => row.attack)];
  const seconds = rows.reduce((sum, row) => sum + row.seconds.total, 0);
  const head = markup`
    <header>
      <h1>${name}</h1>
      <p>${count(rows.length, "cell")}, ${count(attacks.length, "attack")}, ${
    duration(seconds)
  } of curing, sau ${version}.
      Attack success leaves out pictures that show the effect without the trigger. Intervals are Wilson's at 95 %. FD-CLIP is
      a Fréchet distance on CLIP features, which is not FID. A cure's name leads to the cell's own report.</p>
    </header>
  `;
  const drift = (row: Row) => 1 - (figureOf(row, "clean_cosine")?.value ?? NaN);
  return page(`${name} · sau`, head, [
    { id: "left", title: "Attack success left", body: () => overview(rows) },
    ...attacks.map(([attack, own]) => ({
      id: `attack-${attack}`,
      title: attack,
      body: () =>
        markup`${table(own)}${pictures(own)}<div>${
          tradeOff(own, drift, "clean pictures moved (1 − cosine)", (x) => x.toFixed(3))
        }${tradeOff(own, (row) => row.seconds.cure, "seconds of the cure", (x) => x.toFixed(0))}</div>`,
    })),
    {
      id: "failed",
      title: "Cells that failed",
      body: () =>
        failed.length === 0 ? undefined : markup`<ul>${failed.map((f) => markup`<li>${f.cell}: ${f.why}</li>`)}</ul>`,
    },
  ], BESIDE);
};
