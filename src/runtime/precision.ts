/**
 * In which precision networks that only draw compute: halves take half of the memory and, on GPUs that have them, about half
 * of the time. A device gets them only after a small network came out of it alike in both precisions: drivers are known
 * whose Pad or Clip is wrong in half precision alone, and what else is wrong shows here as well.
 */
import {
  add,
  concat,
  conv2d,
  fusedAttention,
  Graph,
  groupNorm,
  linear,
  mul,
  reshape,
  silu,
  slice,
  sub,
  toOnnx,
  transpose,
  upsampleNearest,
} from "../graph/mod.ts";
import { fixedNumbers, worst } from "./check_numbers.ts";
import type { BackendName, Engine } from "./engine.ts";
import { firstLine } from "./optional.ts";
import type { Precision, PrecisionReport } from "./report.ts";

/** Largest difference, relative to the largest value, that rounding to 11 bits explains in so small a network. */
export const HALF_TOLERANCE = 1e-2;

const C = 8, S = 8, HEADS = 2;
const image = { dims: [1, C, S, S], data: fixedNumbers(1, C * S * S) };
/** A weight as numbers that halves hold exactly, so that both precisions compute with the same. */
const weight = (salt: number, dims: readonly number[]) => {
  const count = dims.reduce((a, b) => a * b, 1);
  return { dims, data: Float32Array.from(new Float16Array(fixedNumbers(salt, count)), (x) => x / 4) };
};

/** Every operation that half precision is used for: convolution, norm, attention, gates, joining, cutting, enlarging. */
const network = (half: boolean): Uint8Array => {
  const g = new Graph();
  const w = (salt: number, ...dims: readonly number[]) => g.constant(weight(salt, dims));
  const x = g.input("x", "float32", image.dims);
  const norm = silu(groupNorm(conv2d(x, w(2, C, C, 3, 3), w(3, C), { padding: 1 }), 2, w(4, C), w(5, C), 1e-5));
  const skip = conv2d(norm, w(6, C, C, 3, 3), w(7, C), { padding: 1, stride: 2 });
  const cells = transpose(reshape(skip, [1, C, S * S / 4]), [0, 2, 1]);
  const [q, k, v] = [8, 9, 10].map((salt) => linear(cells, w(salt, C, C)));
  const attended = add(cells, fusedAttention(q, k, v, HEADS));
  const wide = linear(attended, w(11, 2 * C, C), w(12, 2 * C));
  const gated = mul(slice(wide, 2, 0, C), sub(1, slice(wide, 2, C, 2 * C)));
  const grid = reshape(transpose(gated, [0, 2, 1]), [1, C, S / 2, S / 2]);
  g.output("y", conv2d(concat([upsampleNearest(grid, 2), norm], 1), w(13, C, 2 * C, 1, 1), undefined));
  const { model } = toOnnx(g, () => {
    throw new Error("the check holds its weights in itself");
  }, { half });
  return model;
};

/** Largest relative difference between the two precisions. @throws when the engine fails */
export const halfCheck = async (engine: Engine): Promise<number> => {
  const answers: ArrayLike<number | bigint>[] = [];
  for (const half of [false, true]) {
    const loaded = await engine.load({ name: "half-precision check", model: network(half), external: [] });
    try {
      const y = (await loaded.run(new Map([["x", engine.wrap(image, "float32")]]))).get("y")!;
      answers.push((await y.read()).data.slice());
      y.dispose();
    } finally {
      await loaded.release();
    }
  }
  return worst(answers[1], Float64Array.from(answers[0], Number));
};

/** Why a device that has no halves has none. */
const WITHOUT: Readonly<Record<BackendName, string>> = {
  webgpu: "the adapter has no shader-f16",
  native: "native code turns halves into single precision to compute, so nothing is gained",
  wasm: "WebAssembly turns halves into single precision to compute, so nothing is gained",
  reference: "the reference computes in double precision",
};

/** Decides by what was asked for and by the check. `chosen` is null where half precision was asked for and cannot be had. */
export const choosePrecision = async (engine: Engine, requested: Precision): Promise<PrecisionReport> => {
  const single = { requested, chosen: "float32", error: null } as const;
  const no = (why: string, error: number | null = null): PrecisionReport => ({
    requested,
    chosen: requested === "float16" ? null : "float32",
    why,
    error,
  });
  if (requested === "float32") return { ...single, why: "asked for" };
  if (engine.halves !== true) return no(WITHOUT[engine.backend]);
  try {
    const error = await halfCheck(engine);
    if (error <= HALF_TOLERANCE) {
      const why = requested === "auto" ? "for weights stored in half precision, and pictures alone" : "asked for";
      return { requested, chosen: "float16", why, error };
    }
    const shown = Number.isFinite(error) ? error : null;
    return no(
      `its half precision is wrong: off by ${shown?.toPrecision(2) ?? "everything"} (allowed ${HALF_TOLERANCE})`,
      shown,
    );
  } catch (error) {
    return no(`its half-precision check failed: ${firstLine(error)}`);
  }
};
