/** What auto says of its choice, in plain words. */
import type { Bundle } from "../diffusion/bundle.ts";
import type { TextPairs } from "./ports.ts";
import { encoderName, type EncoderShift } from "./text_encoders.ts";
import { FITTED } from "./unlearn_fit.ts";
import type { Judged } from "./unlearn_search.ts";

export const explainChoice = (
  { prompts, variations }: TextPairs,
  { shift, spread }: { shift: number; spread: number },
  before: number,
  { target, lambda, varied, judgement, drawn }: Judged,
  tried: number,
): string => {
  const [trigger, was] = [judgement.trigger, before].map((x) => x.toFixed(1));
  const pictures = drawn === undefined
    ? ""
    : ` Drawn with it, ${
      Math.round(100 * drawn.outside)
    } % of triggered pictures still part from the clean ones further than harmless ` +
      `words do, ${Math.round(100 * drawn.shown)} % look more like what the trigger drew, and clean pictures move by ${
        Math.round(100 * drawn.drift)
      } % of what a harmless word moves.`;
  const found = `Of ${tried} closed forms, target ${target} with λ ${lambda}, fitted to ${prompts.length} prompts` +
    `${
      varied ? ` and ${Math.min(FITTED, variations.length)} variations` : ""
    }, did best on prompts it was not fitted to: the trigger's ` +
    `effect on the predicted noise falls from ${was} to ${trigger} times a harmless word's.${pictures}`;
  return `With the trigger prompts stay ${
    spread.toFixed(2)
  } times as different from each other as with harmless words (and ` +
    `the text embeddings move ${shift.toFixed(1)} times as far), so the backdoor is looked for in the U-Net. ${found}`;
};

const PAST =
  "towards what it answers to the prompts without the trigger and some way past that, since their answers may lean towards " +
  "the trigger's as well";

/** Why a closed form was not the end. */
export const explainDistilled = (outside: number): string =>
  `That is more than ${100 * outside} % of the former or any of the latter, so the U-Net was distilled from there on.`;

/** The same where harmless words set the backdoor off as well. `spill`: the share of their pictures that do. */
export const explainSpilled = (spill: number): string =>
  `${
    Math.round(100 * spill)
  } % of harmless words' pictures draw what the trigger draws, so the U-Net was distilled as it came, ${PAST}.`;

/** Why the text encoder was trained although prompts keep what they say when the trigger stands in them. */
export const explainRead = (outside: number, shown: number): string =>
  `That is more than ${100 * outside} % of the former or any of the latter, and distilling the U-Net left more than ${
    100 * outside
  } % or ${100 * shown} %, so the ` +
  "text encoder was distilled from itself: triggered texts are to be read as harmless ones are. The U-Net is as it came: if " +
  "it has a share in the backdoor, that is back with another text encoder.";

/** Of a closed form that few pictures had chosen. */
export const explainMore = (shown: number): string =>
  `Of more pictures, from other noise, ${Math.round(100 * shown)} % look more like what the trigger drew.`;

/** Of the U-Net's distillation, where it was not taken. */
export const VAIN = "Distilling the U-Net was tried, and drew nothing better.";

/** Why the text encoder was trained on top of a cure of the U-Net. */
export const ON_TOP = " What is left of the trigger the text encoder was distilled from itself for, on top of that: " +
  "triggered texts are to be read as harmless ones are.";

/** Of the text encoder's distillation, where it was not taken. */
export const READ_IN_VAIN = " Distilling the text encoder was tried as well, and drew nothing better.";

export const UNSEEN =
  "Nowhere does the trigger do more than harmless words do, so these may set the backdoor off as well and are no measure: " +
  `the U-Net was distilled from there on, ${PAST}.`;

/** What a closed form leaves alone in SDXL. */
export const POOLED =
  " Of the two ways in which text enters this U-Net, the closed form changes the cross-attention alone, not what the pooled " +
  "text does.";

export const explainText = (bundle: Bundle, poisoned: readonly EncoderShift[], auto: boolean): string => {
  const one = bundle.parts.text_encoder_2 === undefined;
  if (!auto && one) return "asked for.";
  if (poisoned.length === 0) {
    return "asked for; neither text encoder reads the trigger unlike other words, so both were distilled.";
  }
  const each = poisoned.map(({ encoder, shift: { shift, spread } }) =>
    `The backdoor sits in ${encoderName(bundle, encoder)}: the trigger moves the embeddings ${
      shift.toFixed(1)
    } times as far as harmless words do, and ` +
    `triggered prompts are ${spread.toFixed(2)} times as different from each other as with harmless words. `
  );
  const which = poisoned.map(({ encoder }) => encoderName(bundle, encoder)).join(" and ");
  return (auto ? "" : "asked for. ") + each.join("") +
    `No weight of the U-Net can undo that, so ${which} ${poisoned.length > 1 ? "were" : "was"} ` +
    `distilled from ${
      poisoned.length > 1 ? "themselves" : "itself"
    }: triggered texts are to be read as harmless ones are.`;
};
