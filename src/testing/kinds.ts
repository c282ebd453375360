/**
 * What the laws of steps need to know of each kind of value: how to make one, and what it means to flip it, to reorder
 * its prompts, or to take the trigger out of it. A port of your own joins in with a `Kind` of its own.
 */
import fc from "fast-check";
import { eachEmbedding } from "../diffusion/embeddings.ts";
import type { TextPairs } from "../steps/ports.ts";
import { CapturePort, type Field, type Mask, type Scores } from "../steps/ports.ts";
import type { Stored } from "../steps/port.ts";
import { type Capture, CLEAN, TRIGGERED } from "../steps/capture.ts";
import { shapeOf } from "../mask/shape.ts";
import { size, slice0, type Tensor } from "../tensor/tensor.ts";
import { fieldArbitrary, maskArbitrary } from "./arbitraries.ts";
import { captureArbitrary, reorderAxis, type Shape } from "./captures.ts";
import { flipX, flipY } from "./fields.ts";

/** What laws may do to values of one kind; a law that needs what a kind lacks is not asked of steps with that kind. */
export interface Kind<A> {
  /** Values for so many prompts, twins and cells; without it, the test gives the values itself. */
  readonly arbitrary?: (shape: Shape) => fc.Arbitrary<A>;
  /** Left and right, or top and bottom, exchanged. */
  readonly flip?: (value: A, axis: "x" | "y") => A;
  /** Prompts in a new order: prompt i is what prompt order[i] was. */
  readonly reorder?: (value: A, order: readonly number[]) => A;
  /** The first `count` prompts alone. */
  readonly take?: (value: A, count: number) => A;
  /** What the value says of each of the first `count` prompts by itself, without what it says of all together. */
  readonly said?: (value: A, count: number) => Stored;
  /** The triggered reading made the clean one. */
  readonly untriggered?: (value: A) => A;
  /** Throws where a value cannot be: a mask beyond 1. */
  readonly valid?: (value: A) => void;
  /** Throws where a value shows a difference although its inputs were `untriggered`. */
  readonly same?: (value: A) => void;
}

/** The first `count` entries of the first axis. */
const first = (t: Tensor, count: number): Tensor => slice0(t, 0, count);

const flipped = (axis: "x" | "y") => axis === "x" ? flipX : flipY;

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** The mean of [P, h, w] over the prompts. */
export const pooledOf = ({ dims: [prompts, h, w], data }: Tensor): Tensor => {
  const out = new Float32Array(h * w);
  for (let i = 0; i < out.length; i++) {
    let sum = 0;
    for (let p = 0; p < prompts; p++) sum += data[p * h * w + i];
    out[i] = sum / prompts;
  }
  return { dims: [h, w], data: out };
};

/** A field as `locate` gives it, of maps [P, h, w]. */
export const fieldOf = (prompts: Tensor, twins: number): Field => {
  const pooled = pooledOf(prompts);
  return {
    pooled,
    prompts,
    texts: Array.from({ length: prompts.dims[0] }, (_, i) => `prompt ${i}`),
    shape: shapeOf(pooled, prompts),
    use: Array.from({ length: prompts.dims[0] }, () => Array.from({ length: twins }, () => true)),
    infected: [],
  };
};

/** Infected twins of one prompt: they stand in the order of the prompts, one for each twin that is not used. */
const infectedOf = ({ use, infected }: Field, prompt: number): readonly string[] => {
  const left = (p: number): number => use[p].filter((used) => !used).length;
  const before = range(prompt).reduce((sum, p) => sum + left(p), 0);
  return infected.slice(before, before + left(prompt));
};

const field: Kind<Field> = {
  arbitrary: ({ prompts, side, twins }) =>
    fieldArbitrary({ h: side, w: side, batch: [prompts] }).map((maps) => fieldOf(maps, twins)),
  flip: (value, axis) => ({
    ...value,
    pooled: flipped(axis)(value.pooled),
    prompts: flipped(axis)(value.prompts),
  }),
  reorder: (value, order) => ({
    ...value,
    prompts: reorderAxis(value.prompts, 0, order),
    texts: order.map((i) => value.texts[i]),
    use: order.map((i) => value.use[i]),
    infected: order.flatMap((i) => infectedOf(value, i)),
  }),
  take: (value, count) => ({
    ...fieldOf(first(value.prompts, count), 0),
    texts: value.texts.slice(0, count),
    use: value.use.slice(0, count),
    infected: range(count).flatMap((i) => infectedOf(value, i)),
  }),
  said: ({ prompts, texts, use }, count) => ({
    json: { texts: texts.slice(0, count), use: use.slice(0, count) },
    tensors: { prompts: first(prompts, count) },
  }),
  valid: ({ pooled, prompts, texts }) => {
    if (prompts.dims.slice(1).join() !== pooled.dims.join() || prompts.dims[0] !== texts.length) {
      throw new Error(`prompts [${prompts.dims}] do not fit pooled [${pooled.dims}] and ${texts.length} texts`);
    }
    for (const { data } of [pooled, prompts]) {
      if (!data.every(Number.isFinite)) throw new Error("a cell is not a finite number");
    }
  },
  same: ({ pooled }) => {
    const most = pooled.data.reduce((a, b) => Math.max(a, b), -Infinity);
    if (most > 0) throw new Error(`a cell of the pooled field is ${most}: more than harmless words do`);
  },
};

const mask: Kind<Mask> = {
  arbitrary: ({ prompts, side }) =>
    maskArbitrary({ h: side, w: side, batch: [prompts] }).map((maps) => ({ pooled: pooledOf(maps), prompts: maps })),
  flip: (value, axis) => ({ pooled: flipped(axis)(value.pooled), prompts: flipped(axis)(value.prompts) }),
  reorder: (value, order) => ({ ...value, prompts: reorderAxis(value.prompts, 0, order) }),
  take: (value, count) => {
    const prompts = first(value.prompts, count);
    return { pooled: pooledOf(prompts), prompts };
  },
  said: ({ prompts }, count) => ({ json: null, tensors: { prompts: first(prompts, count) } }),
  valid: ({ pooled, prompts }) => {
    if (prompts.dims.slice(1).join() !== pooled.dims.join()) {
      throw new Error(`prompts [${prompts.dims}] do not fit pooled [${pooled.dims}]`);
    }
    for (const { data } of [pooled, prompts]) {
      const bad = data.find((x) => !(x >= 0 && x <= 1));
      if (bad !== undefined) throw new Error(`a cell of the mask is ${bad}, not from 0 to 1`);
    }
  },
};

/** Square maps of cells [..., cells, L] as [..., side, side, L] would be flipped. */
const flipCells = (t: Tensor, axis: "x" | "y"): Tensor => {
  const at = t.dims.length - 2, cells = t.dims[at], side = Math.round(Math.sqrt(cells));
  const order = Array.from({ length: cells }, (_, i) => {
    const x = i % side, y = Math.floor(i / side);
    return axis === "x" ? y * side + side - 1 - x : (side - 1 - y) * side + x;
  });
  return reorderAxis(t, at, order);
};

/** Reading r of [.., R, ..] made another one, where R is axis `axis`. */
const copyReading = (t: Tensor, axis: number, from: number, to: number): Tensor =>
  reorderAxis(t, axis, Array.from({ length: t.dims[axis] }, (_, i) => i === to ? from : i));

const capture: Kind<Capture> = {
  arbitrary: ({ prompts, twins, side }) => captureArbitrary({ prompts, twins, side, layers: 2 }),
  flip: (value, axis) => ({
    ...value,
    latents: flipped(axis)(value.latents),
    noise: flipped(axis)(value.noise),
    layers: value.layers.map((l) => ({ ...l, maps: flipCells(l.maps, axis) })),
    tokenChange: {
      triggered: flipped(axis)(value.tokenChange.triggered),
      twin: flipped(axis)(value.tokenChange.twin),
    },
  }),
  reorder: (value, order) => ({
    ...value,
    latents: reorderAxis(value.latents, 1, order),
    noise: reorderAxis(value.noise, 1, order),
    layers: value.layers.map((l) => ({
      ...l,
      maps: reorderAxis(l.maps, 0, order),
      response: reorderAxis(l.response, 0, order),
    })),
    tokens: value.tokens.map((t) => ({ ...t, prompt: order.indexOf(t.prompt) })),
  }),
  take: (value, count) => {
    const kept = value.tokens.flatMap((t, i) => t.prompt < count ? [i] : []);
    return {
      ...capture.reorder!(value, range(count)),
      tokens: kept.map((i) => value.tokens[i]),
      tokenChange: {
        triggered: reorderAxis(value.tokenChange.triggered, 0, kept),
        twin: reorderAxis(value.tokenChange.twin, 0, kept),
      },
    };
  },
  said: (value, count) => CapturePort.encode(capture.take!(value, count)),
  untriggered: (value) => ({
    ...value,
    noise: copyReading(value.noise, 2, CLEAN, TRIGGERED),
    layers: value.layers.map((l) => ({
      ...l,
      maps: copyReading(l.maps, 1, CLEAN, TRIGGERED),
      response: copyReading(l.response, 1, CLEAN, TRIGGERED),
    })),
    tokenChange: { ...value.tokenChange, triggered: value.tokenChange.twin },
  }),
  same: ({ noise }) => {
    const [, , readings] = noise.dims, each = size(noise.dims.slice(3));
    for (let at = 0; at < noise.data.length; at += readings * each) {
      for (let i = 0; i < each; i++) {
        const apart = noise.data[at + TRIGGERED * each + i] - noise.data[at + CLEAN * each + i];
        if (apart !== 0) throw new Error(`the noise differs by ${apart} where the texts are the same`);
      }
    }
  },
};

const scores: Kind<Scores> = {
  flip: (value) => value,
  reorder: (value, order) => ({
    ...value,
    tokens: value.tokens.map((t) => ({ ...t, prompt: order.indexOf(t.prompt) })),
  }),
  valid: ({ tokens, layers }) => {
    const bad = [...tokens, ...layers].find(({ score }) => !Number.isFinite(score));
    if (bad !== undefined) throw new Error(`a score is ${bad.score}`);
  },
};

const text: Kind<TextPairs> = {
  flip: (value) => value,
  reorder: (value, order) => {
    const places = value.prompts.length;
    return {
      ...value,
      prompts: order.map((i) => value.prompts[i]),
      embeddings: eachEmbedding(value.embeddings, (t) => reorderAxis(t, 0, order)),
      variations: value.variations.map((v) => ({
        ...v,
        sources: v.sources.map((p) => p < places ? order.indexOf(p) : p),
      })),
    };
  },
  take: (value, count) => ({
    ...value,
    prompts: value.prompts.slice(0, count),
    embeddings: eachEmbedding(value.embeddings, (t) => first(t, count)),
    variations: value.variations.filter((v) => v.sources.every((p) => p < count)),
  }),
  untriggered: (value) => ({
    ...value,
    prompts: value.prompts.map((p) => ({ ...p, triggered: p.clean })),
    embeddings: eachEmbedding(value.embeddings, (t) => copyReading(t, 1, CLEAN, TRIGGERED)),
  }),
};

/** The kinds of the built-in ports, by the name of their port. */
export const kinds = { field, mask, capture, scores, text } as const;
