/** What steps of the user's own give: kinds of values that the report has no picture for, as their port stores them. */
import type { RunResult } from "../../pipeline/run.ts";
import type { Port } from "../../steps/port.ts";
import { type Html, markup } from "../html.ts";
import { guarded } from "../page.ts";
import { largest, plain } from "../numbers.ts";
import { colourScale, heatMap } from "../plots.ts";
import type { Tensor } from "../../tensor/tensor.ts";

/** Drawn by other sections, or (captures) too large to be read. */
const KNOWN = new Set([
  "text",
  "capture",
  "field",
  "scores",
  "mask",
  "model",
  "account",
  "verdict",
  "scan",
  "screen",
  "screening",
]);
/** Characters of a value's JSON that are shown. */
const MOST = 2000;
const LARGEST_MAP = 512;

const drawTensor = (name: string, t: Tensor): Html => {
  const dims = `[${t.dims.join(", ")}]`;
  if (t.dims.length !== 2 || t.data.length === 0 || Math.max(...t.dims) > LARGEST_MAP) {
    return markup`<p class="small"><code>${name}</code> ${dims}</p>`;
  }
  const high = largest(t.data), low = -largest(t.data.map((v) => -v));
  return markup`<figure>${
    heatMap(t, [low, high > low ? high : low + 1], `${name}, from ${plain(low)} to ${plain(high)}`)
  }${
    colourScale("", [[0, plain(low)], [1, plain(high)]])
  }<figcaption><code>${name}</code> ${dims}</figcaption></figure>`;
};

const draw = (port: Port<unknown>, value: unknown): Html => {
  const { json, tensors } = port.encode(value);
  const text = JSON.stringify(json, null, 2) ?? "";
  return markup`${
    text !== "" && text !== "null" && markup`<pre>${text.slice(0, MOST)}${text.length > MOST && "\n…"}</pre>`
  }${
    Object.keys(tensors).length > 0 && markup`<div class="maps">${
      Object.entries(tensors).map(([name, t]) => drawTensor(name, t))
    }</div>`
  }`;
};

export const others = <R>(run: RunResult<R>): Html | undefined => {
  const all = run.pipeline.steps.flatMap(({ id, step }) => {
    const given = run.steps.find((result) => result.id === id)?.outputs ?? {};
    return Object.entries(step.outputs).filter(([name, port]) => !KNOWN.has(port.kind) && given[name] !== undefined)
      .map(([name, port]) => ({ id, name, port, value: given[name] }));
  });
  if (all.length === 0) return undefined;
  return markup`${
    all.map(({ id, name, port, value }) =>
      markup`<h3>${id}.${name}</h3><p class="soft small">${port.kind}: ${port.description}</p>${
        guarded(() => draw(port, value))
      }`
    )
  }`;
};
