/**
 * What a LoRA would do to a U-Net, before it is merged: for every weight, how large its change is, and how much of the
 * whole change sits where text enters (`attn2.to_k`, `attn2.to_v`). A style spreads over the network; an edit of what one
 * phrase means needs the text's entry alone, and that is what a backdoor by editing looks like.
 */
import {
  BundleError,
  defaulted,
  Effect,
  openBundle,
  parseHeader,
  PathString,
  readTensor,
  readWeights,
  Schema,
} from "sau";
import { type Figure, Fraction, Step, type Tensor, type Verdict, VerdictPort } from "sau";
import { readFile } from "node:fs/promises";

/** ‖up · down‖ (Frobenius) for up [out, rank] and down [rank, in], by the rank × rank Gram matrices alone. */
export const productNorm = (up: Tensor, down: Tensor): number => {
  const [out, rank] = up.dims, width = down.dims[1];
  let sum = 0;
  for (let a = 0; a < rank; a++) {
    for (let b = 0; b < rank; b++) {
      let left = 0, right = 0;
      for (let i = 0; i < out; i++) left += up.data[i * rank + a] * up.data[i * rank + b];
      for (let j = 0; j < width; j++) right += down.data[a * width + j] * down.data[b * width + j];
      sum += left * right;
    }
  }
  return Math.sqrt(Math.max(0, sum));
};

const lengthOf = ({ data }: Tensor): number => Math.sqrt(data.reduce((sum, x) => sum + x * x, 0));

/** One weight that the LoRA changes. */
export interface Change {
  readonly key: string;
  /** ‖ΔW‖, times the strength that it would be merged with. */
  readonly norm: number;
  /** ‖ΔW‖ / ‖W‖. */
  readonly relative: number;
}

const ofText = (key: string): boolean => /\.attn2\.to_[kv]\.weight$/.test(key);

/** The figures of an audit, each with its bound; a LoRA without any change has a text share of 0. */
export const judge = (
  changes: readonly Change[],
  { most, textShare }: { readonly most: number; readonly textShare: number },
): Figure[] => {
  const squares = (of: readonly Change[]) => of.reduce((sum, { norm }) => sum + norm ** 2, 0);
  const all = squares(changes);
  const share = all === 0 ? 0 : squares(changes.filter(({ key }) => ofText(key))) / all;
  const largest = Math.max(0, ...changes.map(({ relative }) => relative));
  return [
    { name: "largest_change", value: largest, threshold: `<= ${most}`, passed: largest <= most, n: changes.length },
    { name: "text_share", value: share, threshold: `<= ${textShare}`, passed: share <= textShare, n: changes.length },
  ];
};

const lacking = (file: string, problem: string) => new BundleError({ file, problem });

/** The pairs of a LoRA file as diffusers and PEFT name them: `unet.KEY.lora_A.weight` and `…lora_B.weight`. */
const pairsOf = (bytes: Uint8Array, file: string) => {
  const header = parseHeader(bytes, bytes.length, file);
  return [...header.entries.keys()].flatMap((name) => {
    const key = /^unet\.(.+)\.lora_A\.weight$/.exec(name)?.[1];
    if (key === undefined) return [];
    const other = `unet.${key}.lora_B.weight`;
    if (!header.entries.has(other)) throw lacking(file, `holds ${name} without ${other}`);
    const [down, up] = [readTensor(bytes, header, name), readTensor(bytes, header, other)];
    if (down.dims.length !== 2 || up.dims.length !== 2 || up.dims[1] !== down.dims[0]) {
      throw lacking(file, `holds factors of ${key} that do not fit: [${up.dims}] and [${down.dims}]`);
    }
    return [{ key: `${key}.weight`, up, down }];
  });
};

export const auditLora = Step.make("audit-lora", {
  version: 1,
  description: "What merging a LoRA would change in a model's U-Net, and whether only the text's entry is touched.",
  settings: Schema.Struct({
    model: PathString.annotate({ description: "diffusers folder that the LoRA is meant for" }),
    lora: PathString.annotate({ description: "LoRA file (safetensors) as diffusers and PEFT write it" }),
    strength: defaulted(Schema.Finite.annotate({ description: "Factor that it would be merged with." }), 1),
    most: defaulted(Schema.Finite.annotate({ description: "Largest ‖ΔW‖ / ‖W‖ that passes." }), 0.5),
    text_share: defaulted(
      Fraction.annotate({ description: "Largest share of ‖ΔW‖² in attn2.to_k and attn2.to_v that passes." }),
      0.9,
    ),
  }),
  inputs: {},
  outputs: { verdict: VerdictPort },
  files: ({ model, lora }) => [model, lora],
  run: Effect.fnUntraced(function* (_, { model, lora, strength, most, text_share }) {
    const bytes = yield* Effect.tryPromise({ try: () => readFile(lora), catch: (error) => error });
    const pairs = yield* Effect.try({ try: () => pairsOf(new Uint8Array(bytes), lora), catch: (error) => error });
    if (pairs.length === 0) return yield* Effect.fail(lacking(lora, "holds no LoRA of a U-Net (unet.….lora_A.weight)"));
    const bundle = yield* openBundle(model);
    const weights = yield* readWeights(bundle, "unet", pairs.map(({ key }) => key));
    const changes = pairs.map(({ key, up, down }, i): Change => {
      const norm = Math.abs(strength) * productNorm(up, down);
      return { key, norm, relative: norm / lengthOf(weights[i]) };
    });
    const figures = judge(changes, { most, textShare: text_share });
    const passed = figures.every((figure) => figure.passed);
    const [first] = [...changes].sort((a, b) => b.relative - a.relative);
    const verdict: Verdict = {
      passed,
      sentence: passed
        ? `nothing about this LoRA stands out; it changes ${changes.length} weights, most of all ${first.key}`
        : `look closer before you merge this LoRA; it changes ${changes.length} weights, most of all ${first.key}`,
      figures,
      missing: [],
      sheets: [],
    };
    return { verdict };
  }),
});
