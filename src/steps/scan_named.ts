/** What the first suspect of a scan draws, in words, if there are any for it. */
import { Effect } from "effect";
import type { Bundle } from "../diffusion/bundle.ts";
import { splitEmbeddings } from "../diffusion/embeddings.ts";
import { latentDims } from "../diffusion/sampler.ts";
import type { Suspect } from "../diffusion/suspects.ts";
import { encodeOnce } from "../diffusion/text.ts";
import { parseUnetConfig } from "../models/unet_2d_condition.ts";
import { slice0, type Tensor } from "../tensor/tensor.ts";
import { nameEffect, subjectsOf } from "./naming.ts";
import { textWith } from "./scan_probe.ts";

/**
 * @param lines prompts of the same kind, which say what prompts are about
 * @param latents [2·prompts, C, h, w]: pictures of the prompts, first without the suspect
 */
export const nameSuspect = Effect.fnUntraced(function* (
  bundle: Bundle,
  suspect: Suspect,
  { lines, prompts, latents, seed }: {
    readonly lines: readonly string[];
    readonly prompts: readonly string[];
    readonly latents: Tensor;
    readonly seed: number;
  },
) {
  const texts = prompts.flatMap((prompt) => [prompt, textWith(suspect, prompt)]);
  const read = yield* encodeOnce(bundle, texts);
  const [, height, width] = latentDims(parseUnetConfig(bundle.parts.unet.config));
  return yield* nameEffect({
    bundle,
    nouns: subjectsOf(suspect.trigger, lines),
    prompts,
    contexts: splitEmbeddings(read, [prompts.length, 2]),
    pictures: slice0(latents, 0, prompts.length),
    region: { dims: [height, width], data: new Float32Array(height * width).fill(1) },
    seed,
  });
});
