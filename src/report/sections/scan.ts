/** What a scan found: the texts that stand out most, where each acts, and pictures with and without the first ones. */
import type { RunResult } from "../../pipeline/run.ts";
import type { ScannedText, ScanResult } from "../../steps/ports.ts";
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
  place: "acts in one place",
  likeness: "makes different prompts alike",
};

const label = ({ trigger: { text, place, of } }: ScannedText): Html =>
  markup`<span class="piece">${spelled(text)}</span>${
    place === "replace" ? markup` for <span class="piece">${of}</span>` : ""
  }`;

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

const pictures = ({ prompts, suspects, drawn, pictures: all }: ScanResult): Html => {
  const [, , height, width] = all.dims;
  const picture = (i: number, alt: string) =>
    markup`<figure>${framed(pictureUri(one(all, i)), alt, "", [1, 1], Math.max(height, width) > SHARP)}</figure>`;
  return markup`<h3>Pictures</h3>${
    Array.from({ length: 1 + drawn.suspects }, (_, row) =>
      markup`<article class="sheet"><p>${
        row === 0 ? "Prompts as they are" : markup`With ${label(suspects[row - 1])}`
      }</p><div class="row">${
        Array.from({ length: drawn.prompts }, (_, p) =>
          picture(row * drawn.prompts + p, `${row === 0 ? "clean" : suspects[row - 1].trigger.text}: ${prompts[p]}`))
      }</div></article>`)
  }`;
};

export const scan = <R>(run: RunResult<R>): Html | undefined => {
  const all = valuesOf(run, "scan");
  if (all.length === 0) return undefined;
  return markup`${
    all.map(({ value }) =>
      markup`<p>${count(Object.values(value.tried).reduce((a, b) => a + b, 0), "text")} tried in ${
        count(value.prompts.length, "prompt")
      }: ${value.tried.character ?? 0} signs, letters and harmless words before a prompt, ${
        value.tried.letter ?? 0
      } letters in place of others, ${value.tried.word ?? 0} words of the vocabulary's ${value.vocabulary}.</p>${
        ranking(value)
      }${maps(value)}${pictures(value)}`
    )
  }`;
};
