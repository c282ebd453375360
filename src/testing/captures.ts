/** Arbitrary captures: what `denoise` hands on, with a trigger whose place is known. */
import fc from "fast-check";
import { type Capture, CLEAN, FIRST_TWIN, TRIGGERED } from "../steps/capture.ts";
import { normal, seedOf } from "../tensor/random.ts";
import { size, type Tensor } from "../tensor/tensor.ts";

/** Sizes of a capture, and of everything else that is made for the same prompts. */
export interface Shape {
  readonly prompts: number;
  readonly twins: number;
  /** Height and width of the latents, in cells. */
  readonly side: number;
}

export interface CaptureOptions extends Partial<Shape> {
  /** Captured timesteps (1 to 3 unless told). */
  readonly steps?: number;
  /** Channels of the latents (1 to 4 unless told). */
  readonly channels?: number;
  /** Cross-attention layers (0 to 2 unless told). */
  readonly layers?: number;
  /** Tokens of a text (3 to 6 unless told). */
  readonly length?: number;
}

/** A capture, and where its trigger acts: in `region` [h, w], 1 inside and 0 outside, by `strength` beyond other words. */
export interface PlantedCapture {
  readonly capture: Capture;
  readonly region: Tensor;
  readonly strength: number;
}

/** Sizes: 1 to 4 prompts, 2 or 3 twins, 2 to 8 cells a side; they shrink to the smallest. */
export const shapeArbitrary = (fixed: Partial<Shape> = {}): fc.Arbitrary<Shape> =>
  fc.record({
    prompts: between(1, 4, fixed.prompts),
    twins: between(2, 3, fixed.twins),
    side: fixed.side === undefined ? fc.constantFrom(2, 4, 8) : fc.constant(fixed.side),
  });

const between = (min: number, max: number, fixed: number | undefined): fc.Arbitrary<number> =>
  fixed === undefined ? fc.integer({ min, max }) : fc.constant(fixed);

/** Numbers with few digits, so that a counterexample can be read. */
const drawn = (seed: number, name: string, dims: readonly number[]): Float32Array =>
  normal(seedOf(seed, name), dims).data.map((x) => Math.round(8 * x) / 8);

/** Softmax of random numbers along the last axis. */
const attention = (seed: number, name: string, dims: readonly number[]): Tensor => {
  const data = drawn(seed, name, dims).map(Math.exp), length = dims[dims.length - 1];
  for (let at = 0; at < data.length; at += length) {
    const row = data.subarray(at, at + length), sum = row.reduce((a, b) => a + b, 0);
    row.forEach((x, i) => row[i] = x / sum);
  }
  return { dims, data };
};

/**
 * Captures with a planted trigger: harmless words move the predicted noise by about 1 everywhere, the trigger does so
 * too and, inside a rectangle, by `strength` more (0 to 16: with 0 there is no trigger). What shrinks are the sizes, the
 * rectangle and the strength; the rest comes of a seed.
 */
export const plantedCaptureArbitrary = (options: CaptureOptions = {}): fc.Arbitrary<PlantedCapture> =>
  shapeArbitrary(options).chain(({ prompts, twins, side }) =>
    fc.record({
      seed: fc.nat(9999),
      steps: between(1, 3, options.steps),
      channels: between(1, 4, options.channels),
      layers: between(0, 2, options.layers),
      length: between(3, 6, options.length),
      strength: fc.integer({ min: 0, max: 16 }),
      left: fc.nat(side - 1),
      top: fc.nat(side - 1),
      width: fc.integer({ min: 1, max: side }),
      height: fc.integer({ min: 1, max: side }),
    }).map(({ seed, steps, channels, layers, length, strength, left, top, width, height }) => {
      const readings = FIRST_TWIN + twins, cells = side * side;
      const region = Float32Array.from({ length: cells }, (_, i) => {
        const x = i % side, y = Math.floor(i / side);
        return x >= left && x < left + width && y >= top && y < top + height ? 1 : 0;
      });
      const dims = [steps, prompts, readings, channels, side, side];
      const noise = drawn(seed, "noise", dims), clean = drawn(seed, "clean", [steps * prompts, channels * cells]);
      const perReading = channels * cells;
      for (let at = 0; at < noise.length; at += perReading) {
        const reading = (at / perReading) % readings, row = Math.floor(at / perReading / readings);
        for (let i = 0; i < perReading; i++) {
          const moved = reading === CLEAN
            ? 0
            : noise[at + i] + (reading === TRIGGERED ? strength * region[i % cells] : 0);
          noise[at + i] = clean[row * perReading + i] + moved;
        }
      }
      const tokens = Array.from({ length: 2 * prompts }, (_, i) => ({
        prompt: Math.floor(i / 2),
        position: 1 + i % 2,
        piece: i % 2 === 0 ? "trigger" : "cat",
        ofTrigger: i % 2 === 0,
      }));
      const change = (name: string, by: number) => ({
        dims: [tokens.length, side, side],
        data: drawn(seed, name, [tokens.length, cells]).map((x, i) => {
          const own = tokens[Math.floor(i / cells)].ofTrigger ? by * region[i % cells] : 0;
          return x * x + 0.125 + own;
        }),
      });
      const capture: Capture = {
        timesteps: Array.from({ length: steps }, (_, i) => Math.round(900 * (steps - i) / steps)),
        latents: {
          dims: [steps, prompts, channels, side, side],
          data: drawn(seed, "latents", [steps, prompts, channels, side, side]),
        },
        noise: { dims, data: noise },
        layers: Array.from({ length: layers }, (_, i) => ({
          layer: `up_blocks.${i}.attentions.0.transformer_blocks.0.attn2`,
          maps: attention(seed, `maps ${i}`, [prompts, readings, cells, length]),
          response: {
            dims: [prompts, readings],
            data: drawn(seed, `response ${i}`, [prompts, readings]).map((x, r) =>
              r % readings === CLEAN ? 0 : x * x + 0.125 + (r % readings === TRIGGERED ? strength : 0)
            ),
          },
        })),
        tokens,
        tokenChange: { triggered: change("triggered", strength), twin: change("twin", 0) },
      };
      return { capture, region: { dims: [side, side], data: region }, strength };
    })
  );

/** A capture, with or without a trigger. */
export const captureArbitrary = (options: CaptureOptions = {}): fc.Arbitrary<Capture> =>
  plantedCaptureArbitrary(options).map(({ capture }) => capture);

/** The number of elements before an axis, along it and after it. */
const around = (dims: readonly number[], axis: number) => ({
  before: size(dims.slice(0, axis)),
  after: size(dims.slice(axis + 1)),
});

/** An axis in a new order: entry i is what entry order[i] was. The order may leave entries out. */
export const reorderAxis = ({ dims, data }: Tensor, axis: number, order: readonly number[]): Tensor => {
  const { before, after } = around(dims, axis);
  const out = new Float32Array(before * order.length * after);
  for (let b = 0; b < before; b++) {
    order.forEach((from, to) => {
      const at = (b * dims[axis] + from) * after;
      out.set(data.subarray(at, at + after), (b * order.length + to) * after);
    });
  }
  return { dims: dims.with(axis, order.length), data: out };
};
