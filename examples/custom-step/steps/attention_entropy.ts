/**
 * A mask of the cells whose cross-attention the trigger sharpens or blurs. A cell that listens to all tokens alike has
 * an attention entropy of ln L nats, one that listens to a single token has 0. Where a trigger takes cells over, their
 * entropy parts from what it is with harmless words in the trigger's place.
 */
import { CapturePort, defaulted, Effect, FIRST_TWIN, type Mask, MaskPort, Schema, softMask, Step } from "sau";
import { resize, type Tensor, type Threshold, TRIGGERED } from "sau";

/** Entropy of each row of [..., L] in nats, of what the row's values are of their sum; [...]. */
export const entropy = ({ dims, data }: Tensor): Tensor => {
  const length = dims[dims.length - 1];
  const out = new Float32Array(data.length / length);
  for (let i = 0; i < out.length; i++) {
    const row = data.subarray(i * length, (i + 1) * length);
    const sum = row.reduce((a, b) => a + b, 0);
    for (const value of row) {
      const p = value / sum;
      if (p > 0) out[i] -= p * Math.log(p);
    }
  }
  return { dims: dims.slice(0, -1), data: out };
};

/**
 * How far a trigger's entropy lies from the mean of the twins', in nats, [P, cells], for one layer's maps
 * [P, R, cells, L]. Readings stand in the order clean, triggered, twins.
 */
export const entropyShift = (maps: Tensor): Tensor => {
  const [prompts, readings, cells] = maps.dims;
  const { data } = entropy(maps);
  const out = new Float32Array(prompts * cells);
  const twins = readings - FIRST_TWIN;
  for (let p = 0; p < prompts; p++) {
    for (let c = 0; c < cells; c++) {
      const at = (reading: number) => data[(p * readings + reading) * cells + c];
      let mean = 0;
      for (let k = 0; k < twins; k++) mean += at(FIRST_TWIN + k) / twins;
      out[p * cells + c] = Math.abs(mean - at(TRIGGERED));
    }
  }
  return { dims: [prompts, cells], data: out };
};

/** The mean shift over layers, on the latents' grid [P, h, w]; layers whose cells make no square grid are left out. */
export const entropyField = (
  layers: ReadonlyArray<{ readonly maps: Tensor }>,
  size: readonly [number, number],
): Tensor => {
  const fields = layers.flatMap(({ maps }) => {
    const { dims: [prompts, cells], data } = entropyShift(maps);
    const side = Math.sqrt(cells);
    return Number.isInteger(side) ? [resize({ dims: [prompts, side, side], data }, size)] : [];
  });
  if (fields.length === 0) {
    throw new RangeError("there is no attention of such layers; denoise captures it with attention: true");
  }
  const [first] = fields;
  return {
    dims: first.dims,
    data: first.data.map((_, i) => fields.reduce((sum, f) => sum + f.data[i], 0) / fields.length),
  };
};

/** Field to mask: What the mask laws are checked of. */
export const maskOf = (field: Tensor, threshold: Threshold, edge = 12): Tensor => softMask(field, { threshold, edge });

/** The mean of the prompts' fields, [h, w]. */
const pooled = ({ dims: [prompts, h, w], data }: Tensor): Tensor => {
  const out = new Float32Array(h * w);
  data.forEach((x, i) => out[i % (h * w)] += x / prompts);
  return { dims: [h, w], data: out };
};

export const attentionEntropyMask = Step.make("attention-entropy-mask", {
  version: 1,
  description: "A soft mask of the cells whose attention the trigger sharpens or blurs, against harmless words.",
  settings: Schema.Struct({
    threshold: defaulted(
      Schema.Union([
        Schema.Literal("otsu"),
        Schema.Struct({ value: Schema.Finite }),
        Schema.Struct({ quantile: Schema.Finite }),
      ]).annotate({
        description: "Where a shift counts as inside: Otsu's threshold, nats, or a quantile of the cells.",
      }),
      "otsu",
    ),
    layers: defaulted(
      // The way down and the middle look at the whole picture from everywhere: their attention says little of where.
      Schema.String.annotate({ description: "Only layers whose name starts with this; empty for all." }),
      "up_blocks",
    ),
    edge: defaulted(Schema.Finite.annotate({ description: "Steepness of the soft edge; 0 for a hard one." }), 12),
  }),
  inputs: { capture: CapturePort },
  outputs: { mask: MaskPort },
  run: ({ capture }, { threshold, edge, layers }) =>
    Effect.sync(() => {
      const [h, w] = capture.latents.dims.slice(-2);
      const field = entropyField(capture.layers.filter(({ layer }) => layer.startsWith(layers)), [h, w]);
      const mask: Mask = { pooled: maskOf(pooled(field), threshold, edge), prompts: maskOf(field, threshold, edge) };
      return { mask };
    }),
});
