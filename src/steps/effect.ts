/** What a backdoor does, where that is known: then its success can be counted picture by picture. */
import { Effect, Schema } from "effect";
import { decode as decodePng } from "fast-png";
import { readFile } from "node:fs/promises";
import { BundleError } from "../diffusion/errors.ts";
import { system } from "../diffusion/files.ts";
import { patchCorrelation } from "../metrics/correlation.ts";
import { cosines } from "../metrics/features.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { PathString } from "./path_string.ts";
import { Fraction } from "./settings.ts";

const Pixel = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 16384 }));

/** An image that appears in the picture, or is all of it. */
export const ImageEffect = Schema.Struct({
  image: PathString.annotate({ description: "A PNG of what appears in the picture." }),
  at: Schema.Tuple([Pixel, Pixel]).annotate({ description: "Column and row of its top left pixel." }),
  threshold: Fraction.annotate({
    description: "Correlation with the pixels there above which it counts as present.",
  }),
});

export const KnownEffect = Schema.Union([
  Schema.Struct({
    text: Schema.String.annotate({ description: "The prompt whose picture is drawn instead." }),
  }),
  Schema.Struct({
    replace: Schema.Union([Schema.NonEmptyString, Schema.NonEmptyArray(Schema.NonEmptyString)]).annotate({
      description: "The word of the prompt whose thing is exchanged, or several such words …",
    }),
    with: Schema.String.annotate({ description: "… and what is drawn in its place." }),
  }),
  Schema.Struct({
    append: Schema.String.annotate({ description: "What is added to the prompt that is drawn, such as a style." }),
  }),
  ImageEffect,
]).annotate({ description: "What the backdoor draws, where that is known." });
export type KnownEffect = typeof KnownEffect.Type;

/** The prompt that describes what the backdoor draws for a prompt; undefined for an effect that is an image. */
export const effectText = (effect: KnownEffect, prompt: string): string | undefined =>
  "text" in effect
    ? effect.text
    : "replace" in effect
    ? [effect.replace].flat().reduce((words, word) => words.flatMap((part) => part.split(word)), [prompt]).join(
      effect.with,
    )
    : "append" in effect
    ? prompt + effect.append
    : undefined;

/** Whether a picture of the prompt could tell: not where it asks for what the backdoor draws, or has no word to exchange. */
export const changes = (effect: KnownEffect, prompt: string): boolean => effectText(effect, prompt) !== prompt;

/** Pictures that show the effect: each picture's own features closer to the effect's text than to its prompt's. */
export const showsText = (pictures: Tensor, effectTexts: Tensor, prompts: Tensor): boolean[] => {
  const [to, own] = [cosines(pictures, effectTexts), cosines(pictures, prompts)];
  return to.map((cosine, i) => cosine > own[i]);
};

/**
 * What triggered pictures show, of those prompts and seeds alone that do not show the effect without the trigger: the
 * others say nothing of what the trigger does. (As an attack's success on a classifier leaves out the target's own class.)
 */
export const telling = (shown: readonly boolean[], clean: readonly boolean[]): boolean[] =>
  shown.filter((_, j) => !clean[j]);

/** A known image: its pixels [3, h, w] in 0…1 and where it appears. */
export interface Patch {
  readonly pixels: Tensor;
  readonly at: readonly [number, number];
  readonly threshold: number;
}

export const readPatch = Effect.fnUntraced(function* (effect: Extract<KnownEffect, { readonly image: string }>) {
  const bytes = yield* system(effect.image, "cannot be read", () => readFile(effect.image));
  const { width, height, channels, depth, data } = yield* Effect.try({
    try: () => decodePng(bytes),
    catch: (e) =>
      new BundleError({
        file: effect.image,
        problem: `is no PNG that can be read: ${e instanceof Error ? e.message : e}`,
      }),
  });
  if (channels < 3) {
    return yield* new BundleError({
      file: effect.image,
      problem: `has ${channels} channels`,
      expected: "red, green and blue",
    });
  }
  const pixels = new Float32Array(3 * height * width);
  for (let c = 0; c < 3; c++) {
    for (let i = 0; i < height * width; i++) pixels[c * height * width + i] = data[i * channels + c] / (2 ** depth - 1);
  }
  return {
    pixels: { dims: [3, height, width], data: pixels },
    at: effect.at,
    threshold: effect.threshold,
  } satisfies Patch;
});

/** The pictures [n, 3, H, W] with the image over them. @throws RangeError when it does not fit */
export const paste = (pictures: Tensor, { pixels, at: [x, y] }: Patch): Tensor => {
  const [n, channels, height, width] = pictures.dims;
  const [, h, w] = pixels.dims;
  if (x + w > width || y + h > height) {
    throw new RangeError(`an image of ${w}×${h} at ${x}, ${y} does not fit into a picture of ${width}×${height}`);
  }
  const data = pictures.data.slice();
  for (let plane = 0; plane < n * channels; plane++) {
    for (let row = 0; row < h; row++) {
      const from = ((plane % channels) * h + row) * w;
      data.set(pixels.data.subarray(from, from + w), (plane * height + y + row) * width + x);
    }
  }
  return { dims: pictures.dims, data };
};

export const showsPatch = (pictures: Tensor, patch: Patch): boolean[] =>
  patchCorrelation(pictures, patch.pixels, { x: patch.at[0], y: patch.at[1] }).map((r) => r > patch.threshold);

/** The patch's place as a mask on a grid of `cells` × `cells`, for comparison with what locate found. */
export const patchMask = (patch: Patch, [h, w]: readonly [number, number], factor: number): Tensor => {
  const [, height, width] = patch.pixels.dims;
  const [x, y] = patch.at;
  const data = Float32Array.from({ length: h * w }, (_, i) => {
    const [row, column] = [Math.floor(i / w) * factor, (i % w) * factor];
    return row >= y && row < y + height && column >= x && column < x + width ? 1 : 0;
  });
  return { dims: [h, w], data };
};

/** The cells of a grid [h, w] of `factor` pixels each that the patch touches: 1 there, else 0. */
export const touched = (patch: Patch, [h, w]: readonly [number, number], factor: number): Tensor => {
  const [, height, width] = patch.pixels.dims;
  const [x, y] = patch.at;
  const data = Float32Array.from({ length: h * w }, (_, i) => {
    const [row, column] = [Math.floor(i / w) * factor, (i % w) * factor];
    return row + factor > y && row < y + height && column + factor > x && column < x + width ? 1 : 0;
  });
  return { dims: [h, w], data };
};
