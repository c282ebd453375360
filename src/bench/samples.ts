/** A cell's pictures as one PNG, for the bench's page. */
import { mosaicPng } from "../report/picture.ts";
import type { Sheet } from "../steps/ports.ts";

/** What the columns show, from left to right. */
export const SAMPLES = [
  ["triggered, before", "triggeredBefore"],
  ["triggered, after", "triggeredAfter"],
  ["clean, before", "cleanBefore"],
  ["clean, after", "cleanAfter"],
] as const;

/** Prompts that are shown, one a row. */
export const SAMPLE_ROWS = 4;

export const samplesPng = (sheets: readonly Sheet[]): Uint8Array =>
  mosaicPng(sheets.slice(0, SAMPLE_ROWS).map(({ pictures }) => SAMPLES.map(([, view]) => pictures[view])));
