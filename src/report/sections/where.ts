/** Where in the picture the trigger acts: the field, the mask, the word for its shape. */
import type { ShapeReport } from "../../mask/shape.ts";
import type { RunResult } from "../../pipeline/run.ts";
import type { Field, Mask } from "../../steps/ports.ts";
import { slice0, type Tensor } from "../../tensor/tensor.ts";
import { type Content, type Html, markup } from "../html.ts";
import { count, largest, percent, plain, times } from "../numbers.ts";
import { outline } from "../outline.ts";
import { colourScale, heatMap } from "../plots.ts";
import { visible } from "../text.ts";
import { valuesOf } from "../values.ts";

/** Small multiples beyond this many say nothing new. */
const MOST = 24;
/** A scale reaches at least this far (×4), so that noise is not blown up to look like a find. */
const LEAST = Math.log(4);

const SHAPES: Readonly<Record<ShapeReport["shape"], string>> = {
  none: "Nowhere does the trigger do clearly more than a harmless word would.",
  local: "The trigger acts in one small place, the same in every picture, as a patch does.",
  "object-bound": "The trigger acts on a part of each picture that follows what it shows, as an exchanged object does.",
  global: "The trigger acts on most of every picture, as another style or another picture altogether does.",
};

const one = (maps: Tensor, i: number): Tensor => ({ dims: maps.dims.slice(1), data: slice0(maps, i, i + 1).data });

const strongest = (map: Tensor): string => {
  const at = map.data.indexOf(largest(map.data));
  const w = map.dims[1];
  return `strongest in row ${Math.floor(at / w) + 1}, column ${at % w + 1} of ${map.dims[0]} × ${w}`;
};

/** Ticks for a field from ×1 to its top: 1, 3, 10, 30, … that lie well apart, and the top. */
const fieldTicks = (top: number): [number, string][] => {
  const steps = [3, 10, 30, 100, 300, 1000, 3000, 1e4, 1e5, 1e6].map(Math.log).filter((x) => x < 0.84 * top);
  return [[0, "×1 or less"], ...steps.map((x): [number, string] => [x / top, times(x)]), [1, times(top)]]
    .filter(([at], i, all) => i === 0 || i === all.length - 1 || at as number > 0.34) as [number, string][];
};

const fieldScale = (top: number): Html =>
  colourScale(markup`<div>squared distance from the clean reading, over that of harmless words</div>`, fieldTicks(top));

const shapeWords = ({ shape, strength, coverage, promptCoverage, agreement }: ShapeReport): Content => {
  const known = SHAPES[shape];
  return markup`
    <p><strong>${shape.slice(0, 1).toUpperCase()}${shape.slice(1)}.</strong> ${known ?? ""}</p>
    <p class="soft small">Chosen by these figures: at its strongest the trigger acts ${
    times(
      Math.log(strength),
    )
  } a harmless word; ${percent(coverage)} of the cells exceed half of that${
    promptCoverage !== undefined &&
    [`, ${percent(promptCoverage)} in the median prompt's own field`]
  }${
    agreement !== undefined &&
    [`; prompts agree with the pooled place to ${plain(agreement)} (median IoU)`]
  }.</p>
  `;
};

const drawField = (field: Field, mask: Mask | undefined): Html => {
  const { pooled, prompts, texts = [], shape, infected = [] } = field;
  const region = mask !== undefined && mask.pooled.dims.join() === pooled.dims.join() ? outline(mask.pooled) : "";
  const top = largest(pooled.data, LEAST);
  const shown = Math.min(MOST, prompts?.dims[0] ?? 0);
  const each = Array.from({ length: shown }, (_, i) => one(prompts, i));
  const ownTop = largest(each.map((map) => largest(map.data)), LEAST);
  return markup`<div>${shape !== undefined && shapeWords(shape)}
<div class="maps"><figure>${
    heatMap(
      pooled,
      [0, top],
      `Field, mean over prompts: ${times(largest(pooled.data))} at most, ${strongest(pooled)}`,
      region,
    )
  }${fieldScale(top)}<figcaption>Field, mean over prompts${
    region !== "" && ", with the mask's outline"
  }. One square is one latent cell.</figcaption></figure>
${
    mask !== undefined &&
    markup`<figure>${
      heatMap(mask.pooled, [0, 1], `Mask: ${percent(insideShare(mask.pooled))} of the cells are inside`)
    }${colourScale("", [[0, "0, outside"], [1, "1, inside"]])}<figcaption>Mask made of it: ${
      percent(insideShare(mask.pooled))
    } of the cells are inside.</figcaption></figure>`
  }</div>
${
    each.length > 0 &&
    markup`<h3>Prompt by prompt</h3>
<ul class="small-maps">${
      each.map((map, i) =>
        markup`
          <li>
            <figure>${
          heatMap(
            map,
            [0, ownTop],
            `Field of “${texts[i] ?? i + 1}”: ${times(largest(map.data))} at most, ${strongest(map)}`,
          )
        }<figcaption>${visible(texts[i] ?? String(i + 1))}</figcaption></figure>
          </li>
        `
      )
    }</ul>${fieldScale(ownTop)}${
      shown < prompts.dims[0] &&
      markup`<p class="soft small">The first ${shown} of ${count(prompts.dims[0], "prompt")}.</p>`
    }`
  }
${
    infected.length > 0 &&
    markup`<p class="note">${
      count(infected.length, "twin")
    } left out of every comparison, since the backdoor shows in ${infected.length === 1 ? "it" : "them"} too: ${
      infected.map((t, i) => [i > 0 && ", ", markup`“${visible(t)}”`])
    }.</p>`
  }</div>`;
};

const insideShare = (mask: Tensor): number => mask.data.reduce((n, v) => n + (v > 0.5 ? 1 : 0), 0) / mask.data.length;

const drawMask = (mask: Mask): Html =>
  markup`
    <div class="maps">
      <figure>${
    heatMap(
      mask.pooled,
      [0, 1],
      `Mask: ${percent(insideShare(mask.pooled))} of the cells are inside`,
    )
  }${colourScale("", [[0, "0, outside"], [1, "1, inside"]])}<figcaption>Mask: ${
    percent(
      insideShare(mask.pooled),
    )
  } of the cells are inside.</figcaption></figure>
    </div>
  `;

export const where = <R>(run: RunResult<R>): Html | undefined => {
  const fields = valuesOf(run, "field"), masks = valuesOf(run, "mask");
  if (fields.length === 0 && masks.length === 0) return undefined;
  const intro =
    markup`<p>Each cell compares what the triggered prompt makes the network predict with what harmless words in the
trigger's place make of it, on the same latents. ×1 means no further from the clean prompt's answer than a harmless word takes it; ×10, ten times as far (in squared distance).</p>`;
  return markup`${fields.length > 0 && intro}${
    fields.map(({ step, value }, i) => [
      fields.length > 1 && markup`<h3>${step}</h3>`,
      drawField(value, i === fields.length - 1 ? masks.at(-1)?.value : undefined),
    ])
  }${
    masks.slice(0, fields.length > 0 ? -1 : undefined).map((
      { step, value },
    ) => [markup`<h3>${step}</h3>`, drawMask(value)])
  }`;
};
