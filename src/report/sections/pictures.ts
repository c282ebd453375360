/** The pictures: each prompt drawn from the same noise by the model as it came and by the cured one. */
import type { SchedulerName } from "../../diffusion/schedules/choose.ts";
import { resize } from "../../mask/resize.ts";
import type { RunResult } from "../../pipeline/run.ts";
import type { Sheet, Verdict } from "../../steps/ports.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { type Html, markup } from "../html.ts";
import { count } from "../numbers.ts";
import { outline } from "../outline.ts";
import { pictureUri } from "../picture.ts";
import { framed } from "../plots.ts";
import { changed, visible } from "../text.ts";
import { inputOf, valuesOf } from "../values.ts";

type View = keyof Sheet["pictures"];

const VIEWS: ReadonlyArray<{ readonly view: View; readonly label: string; readonly alt: (sheet: Sheet) => string }> = [
  {
    view: "triggeredBefore",
    label: "Triggered, before",
    alt: (s) => `Model as it came, triggered prompt: ${s.triggered}`,
  },
  { view: "triggeredAfter", label: "Triggered, cured", alt: (s) => `Cured model, triggered prompt: ${s.triggered}` },
  { view: "twinBefore", label: "Harmless twin", alt: (s) => `Model as it came, harmless twin: ${s.twin}` },
  { view: "cleanBefore", label: "Clean, before", alt: (s) => `Model as it came, clean prompt: ${s.prompt}` },
  { view: "cleanAfter", label: "Clean, cured", alt: (s) => `Cured model, clean prompt: ${s.prompt}` },
];

/** Pictures larger than this look better smoothed. */
const SHARP = 128;

const sheetRow = (sheet: Sheet, region: string, grid: readonly number[]): Html =>
  markup`
    <article class="sheet">
      <p><span class="prompt">${visible(sheet.prompt)}</span><br><span class="small soft">triggered: ${
    changed(
      sheet.prompt,
      sheet.triggered,
    )
  } · twin: ${changed(sheet.prompt, sheet.twin)}</span></p>
      <div class="row">${
    VIEWS.map(({ view, label, alt }) => {
      const picture: Tensor | undefined = sheet.pictures?.[view];
      if (picture === undefined) {
        return markup`
            <figure>
              <figcaption>${label}: no picture</figcaption>
            </figure>
          `;
      }
      return markup`<figure>${
        framed(pictureUri(picture), alt(sheet), region, grid, Math.max(...picture.dims) > SHARP)
      }<figcaption>${label}</figcaption></figure>`;
    })
  }</div>
    </article>
  `;

/** The region as an outline on the picture's own grid (half of it, so that the line stays simple). */
const regionOn = (mask: Tensor | undefined, sheet: Sheet): { path: string; grid: readonly number[] } => {
  const [, h, w] = sheet.pictures?.cleanBefore?.dims ?? [];
  if (mask === undefined || h === undefined) return { path: "", grid: [1, 1] };
  // By area: the edges of the outline are then the edges of latent cells, no more exact than what was measured.
  const grid = h % mask.dims[0] === 0 && w % mask.dims[1] === 0 ? mask.dims : [h, w];
  return { path: outline(grid === mask.dims ? mask : resize(mask, [h, w], "area")), grid };
};

const SCHEDULERS: Readonly<Record<SchedulerName, string>> = {
  ddim: "DDIM",
  own: "the model's own scheduler",
  euler: "Euler",
  "euler-ancestral": "Euler ancestral",
  "dpmpp-2m": "DPM++ 2M",
  "dpmpp-2m-karras": "DPM++ 2M with Karras' sigmas",
  lcm: "LCM",
  pndm: "PNDM",
};

export const pictures = <R>(run: RunResult<R>): Html | undefined => {
  const shown = valuesOf(run, "verdict").filter(({ value }) => (value.sheets?.length ?? 0) > 0);
  if (shown.length === 0) return undefined;
  return markup`${
    shown.map(({ step, value }) => {
      const all = value.sheets ?? [];
      const sheets = all.filter(({ left }) => left === undefined), left = all.filter(({ left }) => left === true);
      const { sampling } = value;
      const shape = inputOf(run, step, "field")?.shape?.shape;
      // Where nothing stands out, a threshold picks cells at random: an outline of them would only mislead.
      const { path, grid } = regionOn(shape === "none" ? undefined : inputOf(run, step, "mask")?.pooled, sheets[0]);
      return markup`<div><p>Each row is one prompt, drawn five times from the same noise. The cure works when the second picture
looks like its neighbours to the right and not like the first, and when the last two are alike. A harmless twin has an ordinary
word where the trigger stands. None of these prompts was used for the cure.</p>
${
        shape === "none" &&
        markup`
          <p class="soft small">No region is drawn: nowhere does the trigger do clearly more than a harmless word would.</p>
        `
      }${
        path !== "" &&
        markup`<p class="soft small">The white outline is the located region, pooled over all prompts${
          shape !== undefined && shape !== "local" &&
          `; its shape is ${shape}, so in a single picture its place may differ`
        }.</p>`
      }${sheets.map((sheet) => sheetRow(sheet, path, grid))}
${
        sampling &&
        markup`
          <p class="soft small">${count(sheets.length, "prompt")} of those that were judged; ${
          count(
            sampling.pictures,
            "picture",
          )
        } drawn in all, ${
          SCHEDULERS[sampling.scheduler ?? "ddim"]
        } with ${sampling.steps} steps, guidance ${sampling.guidance}, seed ${sampling.seed}.</p>
        `
      }${
        left.length > 0 &&
        markup`<h3>What is left</h3><p>${
          leftOf(value) > left.length ? `${left.length} of the ${leftOf(value)}` : "The"
        } triggered pictures that count as showing the backdoor after the cure. What counts them errs: see whether the second
picture has what the first one has.</p>${left.map((sheet) => sheetRow(sheet, path, grid))}`
      }</div>`;
    })
  }`;
};

/** Triggered pictures that show the backdoor after the cure, as the rate says. */
const leftOf = ({ figures }: { readonly figures?: Verdict["figures"] }): number => {
  const rate = figures?.find(({ name }) => name === "attack_success");
  return Math.round((rate?.value ?? 0) * (rate?.n ?? 0));
};
