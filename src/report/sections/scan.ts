/** What a scan found: the texts that stand out most, where each acts, and pictures with and without the first ones. */
import type { RunResult } from "../../pipeline/run.ts";
import type { ScannedText, ScanResult } from "../../steps/ports.ts";
import { namesText, triedText } from "../../steps/scan_verdict.ts";
import { slice0, type Tensor } from "../../tensor/tensor.ts";
import { type Html, markup } from "../html.ts";
import { count, fixed, largest } from "../numbers.ts";
import { pictureUri } from "../picture.ts";
import { bars, framed, heatMap } from "../plots.ts";
import { spelled } from "../text.ts";
import { valuesOf } from "../values.ts";

/** Maps beyond this many say nothing new. */
const MAPS = 4;
/** Pictures larger than this look better smoothed. */
const SHARP = 128;
/** A scale reaches at least this far (×4), so that noise is not blown up to look like a find. */
const LEAST = Math.log(4);

const MEASURES: Readonly<Record<ScannedText["measure"], string>> = {
  strength: "moves the whole answer",
  start: "moves the answer to pure noise",
  place: "acts in one place",
  beside: "acts beside one noun alone",
  likeness: "makes different prompts alike",
  reach: "is amplified by the weights that read it",
};

const label = ({ trigger: { text, place, of, beside } }: ScannedText): Html =>
  markup`<span class="piece">${spelled(text)}</span>${
    place === "replace" ? markup` for <span class="piece">${of}</span>` : place === "suffix" ? " behind a prompt" : ""
  }${beside === undefined ? "" : markup` beside <span class="piece">${beside}</span>`}`;

const one = (t: Tensor, i: number): Tensor => ({ dims: t.dims.slice(1), data: slice0(t, i, i + 1).data });

const ranking = ({ suspects }: ScanResult): Html =>
  bars(
    suspects.map((s) => ({
      label: markup`${label(s)} <span class="soft small">${MEASURES[s.measure]}</span>`,
      value: Math.max(0, s.score),
      text: fixed(s.score),
      strong: s.score > 1,
    })),
    markup`How far each text stands out from others of its kind, in units of what is allowed: above 1 is a suspect.`,
    ["Text", "Score"],
  );

const maps = ({ suspects, fields }: ScanResult): Html => {
  const shown = suspects.slice(0, MAPS);
  const top = largest(shown.map((_, i) => largest(one(fields, i).data)), LEAST);
  return markup`<h3>Where they act</h3><div class="maps">${
    shown.map((s, i) =>
      markup`<figure>${heatMap(one(fields, i), [0, top], `Where "${s.trigger.text}" acts`)}<figcaption>${
        label(s)
      }</figcaption></figure>`
    )
  }</div><p class="soft small">Light: moved further than is usual for texts of that kind (logarithmic).</p>`;
};

const pictures = ({ suspects, drawn, pictures: all }: ScanResult): Html => {
  const [, , height, width] = all.dims;
  const row = (begin: number, prompts: readonly string[], what: string): Html =>
    markup`<div class="row">${
      prompts.map((prompt, p) =>
        markup`<figure>${
          framed(pictureUri(one(all, begin + p)), `${what}: ${prompt}`, "", [1, 1], Math.max(height, width) > SHARP)
        }</figure>`
      )
    }</div>`;
  let begin = 0;
  return markup`<h3>Pictures</h3>${
    drawn.map((prompts, i) => {
      const from = begin;
      begin += 2 * prompts.length;
      return markup`<article class="sheet"><p>Prompts as they are, and with ${label(suspects[i])}</p>${
        row(from, prompts, "clean")
      }${row(from + prompts.length, prompts, suspects[i].trigger.text)}</article>`;
    })
  }`;
};

/** How many ways of acting the suspects have, and how the model compares with clean ones. */
const found = ({ families, names, clean, evaluations }: ScanResult): Html => {
  const ways = families.length === 0
    ? "Nothing stands out further than is allowed."
    : families.length === 1
    ? `${count(families[0], "text")} stand out further than is allowed, all in the same way.`
    : `${
      count(families.reduce((a, b) => a + b, 0), "text")
    } stand out further than is allowed, in ${families.length} ` +
      `ways (${families.join(", ")}).`;
  const against = clean === undefined
    ? "Without scans of models known to be clean there is no p-value."
    : `Of ${count(clean.n, "clean model")} ${clean.asHigh} score as high: p = ${fixed(clean.p)}, and with so many it ` +
      `cannot be below ${fixed(1 / (1 + clean.n))}.`;
  return markup`<p>${ways}${namesText(names)} ${against} ${
    count(evaluations, "answer")
  } of the U-Net were compared.</p>${
    families.length > 0 &&
    markup`<p class="soft small">Those that do the same stand together; of them first those that people would not see,
      then those that work in every prompt. Texts that share tokens with a trigger often set it off too.</p>`
  }`;
};

export const scan = <R>(run: RunResult<R>): Html | undefined => {
  const all = valuesOf(run, "scan");
  if (all.length === 0) return undefined;
  return markup`${
    all.map(({ value, step }) =>
      markup`${all.length > 1 && markup`<h3>${step}</h3>`}<p>${
        count(Object.values(value.tried).reduce((a, b) => a + b, 0), "text")
      } tried in ${count(value.prompts.length, "prompt")}: ${triedText(value)}.</p>${found(value)}${ranking(value)}${
        maps(value)
      }${pictures(value)}`
    )
  }`;
};
