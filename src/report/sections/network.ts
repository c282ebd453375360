/** Which tokens set the trigger off, and which layers carry it. */
import type { RunResult } from "../../pipeline/run.ts";
import type { Scores } from "../../steps/ports.ts";
import { type Html, markup } from "../html.ts";
import { largest, times } from "../numbers.ts";
import { bars } from "../plots.ts";
import { spelled } from "../text.ts";
import { valuesOf } from "../values.ts";

/** Prompts whose tokens are shown. */
const MOST = 6;

type Token = Scores["tokens"][number];

const tokenRow = (tokens: readonly Token[], top: number): Html =>
  markup`<ol class="tokens">${
    tokens.map(({ piece, ofTrigger, score }) =>
      markup`<li class="${ofTrigger && "ours"}"><span class="column"><span class="num">${
        times(score)
      }</span><i style="height:${
        (3.2 * Math.min(1, Math.max(0, score / top || 0))).toFixed(2)
      }rem"></i></span><span class="piece">${spelled(piece)}</span>${
        ofTrigger ? markup`<span class="num">trigger</span>` : markup`<span class="num">&#160;</span>`
      }</li>`
    )
  }</ol>`;

const drawTokens = (tokens: readonly Token[]): Html | undefined => {
  if (tokens.length === 0) return undefined;
  const prompts = [...Map.groupBy(tokens, (t) => t.prompt).values()];
  const top = largest(tokens.map((t) => t.score), Math.log(2));
  return markup`<h3>Tokens</h3><p>How much changes inside the located region when a harmless token takes a token's place, over the
same change in a twin. ×1 is an ordinary token; the tokens that set the backdoor off stand out. Bars are logarithmic.</p>
${prompts.slice(0, MOST).map((own) => tokenRow(own, top))}${
    prompts.length > MOST && markup`<p class="soft small">The first ${MOST} of ${prompts.length} prompts.</p>`
  }`;
};

/** `down 0 · 0 · block 0`: where in the U-Net a layer sits, without the words that all of them share. */
export const shortKey = (key: string): string =>
  key.replaceAll("down_blocks.", "down ").replaceAll("up_blocks.", "up ").replace(/mid_block\b/u, "mid")
    .replace(/\.attentions\.(\d+)/u, ", attention $1")
    .replace(/\.transformer_blocks\.0(?=\.attn)/u, "").replace(/\.transformer_blocks\.(\d+)/u, ", block $1")
    .replace(/\.attn2\b/u, "").replace(/\.to_([kv])\.weight$/u, " · $1").replace(/^\./u, "");

const drawLayers = (layers: Scores["layers"]): Html | undefined => {
  if (layers.length === 0) return undefined;
  const top = largest(layers.map((l) => l.score));
  return markup`<h3>Layers</h3>${
    bars(
      layers.map(({ layer, score }) => ({
        label: markup`<span title="${layer}">${shortKey(layer)}</span>`,
        value: Math.max(0, score),
        text: times(score),
        strong: score === top,
      })),
      markup`How much further the trigger moves what text adds to each cross-attention layer than harmless words do (squared distance,
in the order of the network; bars are logarithmic).`,
      ["Layer", "Ratio"],
    )
  }`;
};

export const network = <R>(run: RunResult<R>): Html | undefined => {
  const all = valuesOf(run, "scores").filter(({ value }) =>
    (value.tokens?.length ?? 0) + (value.layers?.length ?? 0) > 0
  );
  if (all.length === 0) return undefined;
  return markup`${
    all.map(({ step, value }) =>
      markup`<div>${all.length > 1 && markup`<p><strong>${step}</strong></p>`}${drawTokens(value.tokens ?? [])}${
        drawLayers(value.layers ?? [])
      }</div>`
    )
  }`;
};
