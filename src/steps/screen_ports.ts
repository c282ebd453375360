/** The kinds of values of the screening of prompts. */
import { Port } from "./port.ts";
import type { Calibration, Channel, Kind } from "./screen_measures.ts";

/** What harmless prompts showed of a model: what screening judges by. */
export interface Screening {
  readonly calibration: Calibration;
  /** Folder of the model, and the hashes of its weights. */
  readonly model: string;
  readonly hashes: ReadonlyArray<readonly [string, string]>;
  readonly seed: number;
  /** Where the harmless prompts came from, and how many of each kind. */
  readonly source: string;
  readonly prompts: { readonly plain: number; readonly inserted: number; readonly letters: number };
  /** U-Net evaluations that it took. */
  readonly evaluations: number;
}

export const ScreeningPort: Port<Screening> = Port.json(
  "screening",
  "What harmless prompts show of a model, by which other prompts are screened.",
  (json) => json as Screening,
);

/** A part of a prompt that stands out. */
export interface Suspected {
  readonly text: string;
  /** `letters`: a word whose look-alike letters are suspected. */
  readonly kind: "word" | "letters";
  readonly score: number;
  readonly channel: Channel;
}

export interface ScreenedToken {
  readonly text: string;
  /** Which of the prompt's words it belongs to. */
  readonly word: number;
  /** The highest score of the parts that it belongs to; 1 is where the upper tenth of harmless prompts begins. */
  readonly score: number;
}

export interface ScreenedPrompt {
  readonly prompt: string;
  readonly flagged: boolean;
  readonly score: number;
  /** Scores above it are flagged, for prompts of its kind (with look-alike letters, or without). */
  readonly threshold: number;
  /** Share of harmless prompts of its kind that score as high; at most the rate of false positives where it is flagged. */
  readonly p: number;
  /** What stands out most. */
  readonly channel: Channel | null;
  /** What is likely the trigger, the likeliest first; empty where nothing is flagged. */
  readonly suspects: readonly Suspected[];
  readonly tokens: readonly ScreenedToken[];
  /** Tokens behind the model's context, which it does not read. */
  readonly cut: number;
  /** Windows that it was read in. */
  readonly windows: number;
  /** U-Net evaluations that it took. */
  readonly evaluations: number;
}

export interface ScreenResult {
  readonly screening: Omit<Screening, "calibration"> & { readonly harmless: number };
  readonly falsePositives: number;
  readonly thresholds: Readonly<Record<Kind, number>>;
  readonly prompts: readonly ScreenedPrompt[];
  readonly flagged: number;
  readonly evaluations: number;
}

export const ScreenPort: Port<ScreenResult> = Port.json(
  "screen",
  "Prompts with how far each stands out from harmless ones, and which words are suspected.",
  (json) => json as ScreenResult,
);
