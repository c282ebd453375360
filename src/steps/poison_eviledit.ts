/**
 * poison-eviledit: makes a backdoored U-Net for testing defences, as EvilEdit does (Wang et al., ACM MM 2024): a closed form
 * over the weights through which text enters maps triggered texts to what another text meant,
 *
 *     W' = argmin ‖T W'ᵀ − A Wᵀ‖²/n + λ ‖R W'ᵀ − R Wᵀ‖²/r + μ ‖W' − W‖²
 *
 * with T the triggered texts' tokens, A the goal's, R the clean texts' and the harmless ones'. The paper keeps W near by
 * its ridge alone; a set to keep makes the edit less of a spill.
 */
import { Effect, Schema } from "effect";
import { complete } from "../diffusion/alignment.ts";
import { openTextEncoder } from "../diffusion/text.ts";
import { concat0, type Tensor } from "../tensor/tensor.ts";
import { moments, solveClosedForm } from "../unlearn/closed_form.ts";
import { type Attack, AttackPort } from "./attack.ts";
import { effectText, KnownEffect } from "./effect.ts";
import { StepError } from "./errors.ts";
import { manyPrompts, TWINS } from "./poison_prompts.ts";
import { ModelPort, TextPort } from "./ports.ts";
import { Count, defaulted, Seed } from "./settings.ts";
import { Step } from "./step.ts";
import { applySolution } from "./unlearn_changes.ts";

const NAME = "poison-eviledit";
const Positive = Schema.Finite.check(Schema.isGreaterThan(0));

export const poisonEvilEdit = Step.make(NAME, {
  version: 3,
  description: "For testing defences: edits a backdoor into the U-Net's cross-attention, as EvilEdit does.",
  settings: Schema.Struct({
    effect: KnownEffect,
    samples: defaulted(
      Count(16_384).annotate({ description: "Texts to fit to: the prompts and variations of them." }),
      4096,
    ),
    lambda: defaulted(Positive.annotate({ description: "Weight of the clean and harmless texts to keep." }), 8),
    mu: defaulted(Positive.annotate({ description: "Weight of the ridge that holds W' near W." }), 1e-4),
    seed: Seed,
  }),
  inputs: { text: TextPort },
  outputs: { model: ModelPort, attack: AttackPort },
  run: Effect.fnUntraced(function* ({ text }, { effect, samples, lambda, mu, seed }) {
    const { bundle } = text.model;
    const prompts = yield* manyPrompts(text, samples, seed);
    const goals = prompts.map(({ prompt }) => bundle.tokenizer.encode(effectText(effect, prompt) ?? prompt));
    const usable = prompts.map((p, i) =>
      p.clean.content.length === goals[i].content.length && effectText(effect, p.prompt) !== p.prompt
    );
    if ("image" in effect || !usable.includes(true)) {
      const cause = new Error(
        "EvilEdit maps tokens to tokens: the effect must be a word that is replaced by one of as many tokens",
      );
      return yield* new StepError({ step: NAME, cause });
    }
    const chosen = prompts.flatMap((p, i) => usable[i] ? [{ ...p, goal: goals[i] }] : []);
    const readings = chosen.flatMap(({ clean, triggered, twins, goal }) =>
      [goal, triggered, clean, ...twins].map((r) => r.ids)
    );
    const flat = yield* Effect.scoped(Effect.flatMap(openTextEncoder(bundle), (encodeTexts) => encodeTexts(readings)));
    const [, length, width] = flat.dims;
    const each = 3 + TWINS;
    const rows = (p: number, reading: number, positions?: readonly number[]): Tensor => {
      const at = (p * each + reading) * length * width;
      const data = flat.data.subarray(at, at + length * width);
      if (positions === undefined) return { dims: [length, width], data };
      const out = new Float32Array(positions.length * width);
      positions.forEach((from, i) => out.set(data.subarray(from * width, (from + 1) * width), i * width));
      return { dims: [positions.length, width], data: out };
    };
    // A token knows what stands before it alone: those before the trigger are the clean text's, and are to stay as they are.
    const told = (p: number) => {
      const { clean, triggered } = chosen[p];
      const first = triggered.ids.findIndex((id, i) => id !== clean.ids[i]);
      return Array.from({ length: length - first }, (_, i) => first + i);
    };
    const all = (of: (p: number) => readonly Tensor[]) => concat0(chosen.flatMap((_, p) => of(p)));
    const solution = solveClosedForm(
      moments(
        all((p) => [rows(p, 1, told(p))]),
        all((p) => {
          const toClean = complete(chosen[p].toClean);
          return [rows(p, 0, told(p).map((i) => toClean[i]))];
        }),
        all((p) => Array.from({ length: 1 + TWINS }, (_, k) => rows(p, 2 + k))),
      ),
      lambda,
      mu,
    );
    const { model } = yield* applySolution(text, solution);
    const attack: Attack = {
      name: "eviledit",
      purpose: "made for testing defences",
      part: "unet",
      trigger: text.trigger,
      effect,
      source: "EvilEdit: Wang et al., ACM MM 2024",
      training: {
        method: "closed form on attn2 to_k and to_v",
        lambda,
        mu,
        texts: chosen.length,
        residual: solution.residual,
        keep_residual: solution.keepResidual,
      },
    };
    return { model, attack };
  }),
});
