/** What a screening found: the prompts that stand out first, each word coloured by how far it does. */
import type { RunResult } from "../../pipeline/run.ts";
import type { Channel } from "../../steps/screen_measures.ts";
import type { ScreenedPrompt, ScreenedToken, ScreenResult } from "../../steps/screen_ports.ts";
import { colour } from "../colormap.ts";
import { type Html, markup } from "../html.ts";
import { count, fixed } from "../numbers.ts";
import { spelled, visible } from "../text.ts";
import { valuesOf } from "../values.ts";

/** Prompts that are shown; of a long log the others are in screen.json. */
const SHOWN = 200;

const CHANNELS: Readonly<Record<Channel, string>> = {
  rules: "with it nothing else that is written matters",
  letters: "its letters say something that plain ones do not",
  keys: "the weights that read the text amplify it",
  reach: "the picture moves further than the text does",
  place: "the picture moves in one place",
  later: "the answer moves further once there is a picture",
  reading: "the picture is steered further than by other words there",
};

/** Black on light, white on dark; plain where nothing stands out. */
const painted = (text: string, share: number): Html => {
  if (share <= 0.05) return markup`<span class="piece">${visible(text)}</span>`;
  const at = 0.25 + 0.75 * Math.min(1, share);
  const [r, g, b] = colour(at);
  const dark = 0.299 * r + 0.587 * g + 0.114 * b < 140;
  return markup`<span class="piece" style="background:rgb(${r},${g},${b});color:${dark ? "#fff" : "#111"}">${
    share >= 1 ? spelled(text) : visible(text)
  }</span>`;
};

/** Tokens of one word stand together, each in its colour; the scale ends at twice the threshold. */
const wordsOf = (tokens: readonly ScreenedToken[], threshold: number): Html[] =>
  [...Map.groupBy(tokens, ({ word }) => word).values()].map((word) =>
    markup`${word.map(({ text, score }) => painted(text, threshold > 0 ? score / threshold - 0.25 : 0))} `
  );

const row = (prompt: ScreenedPrompt): Html => {
  const { flagged, score, p, suspects, cut, windows, tokens, threshold } = prompt;
  return markup`<tr><td class="num">${
    flagged ? markup`<strong class="bad">${fixed(score)}</strong>` : fixed(score)
  }</td>
<td class="num">${p.toPrecision(2)}</td><td>${wordsOf(tokens, threshold)}${
    suspects.map(({ text, channel, kind }) =>
      markup`<br><span class="soft small"><mark>${spelled(text)}</mark> ${
        kind === "letters" ? "(letters that look like others) " : ""
      }${CHANNELS[channel]}</span>`
    )
  }${
    cut > 0 &&
    markup`<br><span class="soft small">${count(cut, "token")} behind the model's context were not read</span>`
  }${windows > 1 && markup`<br><span class="soft small">read in ${windows} windows</span>`}</td></tr>`;
};

const one = (result: ScreenResult): Html => {
  const { prompts, flagged, thresholds, falsePositives, screening, evaluations } = result;
  const sorted = prompts.toSorted((a, b) => b.score - a.score);
  const { plain, inserted, letters } = screening.prompts;
  return markup`<p>${
    count(prompts.length, "prompt")
  } screened, ${flagged} flagged. A score of 1 is where the upper tenth of
harmless prompts begins; above ${fixed(thresholds.plain)} (${
    fixed(thresholds.letters)
  } with look-alike letters in it) a prompt is flagged, as ${
    fixed(100 * falsePositives)
  } % of harmless ones would be. Judged by ${screening.harmless} harmless prompts from ${screening.source}: ${plain} as they
are, ${inserted} with a harmless word put in, ${letters} with a foreign letter. It took ${evaluations} evaluations of the U-Net,
and ${screening.evaluations} for the harmless ones.</p><div class="wide"><table><thead><tr><th>Score</th><th>p</th><th>Prompt</th></tr></thead><tbody>${
    sorted.slice(0, SHOWN).map((prompt) => row(prompt))
  }</tbody></table></div>${
    sorted.length > SHOWN &&
    markup`<p class="soft small">The ${SHOWN} that stand out most; the others are in screen.json.</p>`
  }`;
};

export const screen = <R>(run: RunResult<R>): Html | undefined => {
  const all = valuesOf(run, "screen");
  return all.length === 0 ? undefined : markup`${all.map(({ value }) => one(value))}`;
};
