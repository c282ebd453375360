/**
 * The small computation that must come out right before a device is trusted. It goes the way that real work goes: weights
 * from an external file at an odd offset, convolution, matrix product and softmax, an output that stays on the device and
 * is fed back, and a second result that is read. A device that computes nothing, or wrongly, differs from plain arithmetic.
 */
import { add, conv2d, Graph, matmul, mul, reshape, softmax, toOnnx, type WeightPlace } from "../graph/mod.ts";
import { fixedNumbers, worst } from "./check_numbers.ts";
import type { Engine } from "./engine.ts";

/** Largest error, relative to the largest expected value, that rounding in another order explains many times over. */
export const TOLERANCE = 1e-3;

const C = 8, S = 12, N = S * S, OFFSET = 3;

const image = fixedNumbers(1, C * N);
const kernel = fixedNumbers(2, C * C * 9);
const matrix = fixedNumbers(3, N * N).map((v) => v / 3);

const model = () => {
  const graph = new Graph();
  const weight = graph.weights("check");
  const x = graph.input("x", "float32", [1, C, S, S]);
  const rows = reshape(conv2d(x, weight("kernel", [C, C, 3, 3]), undefined, { padding: 1 }), [C, N]);
  const attended = mul(softmax(matmul(rows, weight("matrix", [N, N]))), 10);
  graph.output("y", add(x, reshape(attended, [1, C, S, S])));
  const places: Record<string, Omit<WeightPlace, "path" | "dtype">> = {
    kernel: { offset: OFFSET, length: kernel.byteLength, dims: [C, C, 3, 3] },
    matrix: { offset: OFFSET + kernel.byteLength, length: matrix.byteLength, dims: [N, N] },
  };
  const { model } = toOnnx(graph, (_, key) => ({ path: "check", dtype: "float32", ...places[key] }));
  const data = new Uint8Array(OFFSET + kernel.byteLength + matrix.byteLength);
  data.set(new Uint8Array(kernel.buffer), OFFSET);
  data.set(new Uint8Array(matrix.buffer), OFFSET + kernel.byteLength);
  return { name: "self-check", model, external: [{ path: "check", data }] };
};

/** The same in plain arithmetic (float64). */
const reference = (x: Float64Array): Float64Array => {
  const rows = new Float64Array(C * N);
  for (let o = 0; o < C; o++) {
    for (let r = 0; r < S; r++) {
      for (let c = 0; c < S; c++) {
        let sum = 0;
        for (let i = 0; i < C; i++) {
          for (let k = 0; k < 9; k++) {
            const y = r + Math.floor(k / 3) - 1, z = c + k % 3 - 1;
            if (y >= 0 && y < S && z >= 0 && z < S) sum += x[i * N + y * S + z] * kernel[(o * C + i) * 9 + k];
          }
        }
        rows[o * N + r * S + c] = sum;
      }
    }
  }
  const out = Float64Array.from(x);
  for (let o = 0; o < C; o++) {
    const scores = new Float64Array(N);
    for (let i = 0; i < N; i++) for (let j = 0; j < N; j++) scores[j] += rows[o * N + i] * matrix[i * N + j];
    const most = scores.reduce((a, b) => Math.max(a, b));
    const weights = scores.map((s) => Math.exp(s - most));
    const total = weights.reduce((a, b) => a + b);
    weights.forEach((w, j) => out[o * N + j] += 10 * w / total);
  }
  return out;
};

/** Largest relative error of the engine's result. @throws when the engine fails. */
export const selfCheck = async (engine: Engine): Promise<number> => {
  const loaded = await engine.load(model());
  try {
    const first = await loaded.run(new Map([["x", engine.wrap({ dims: [1, C, S, S], data: image }, "float32")]]));
    const kept = first.get("y")!;
    const second = await loaded.run(new Map([["x", kept]]));
    const { data } = await second.get("y")!.read();
    kept.dispose();
    second.get("y")!.dispose();
    return worst(data, reference(reference(Float64Array.from(image))));
  } finally {
    await loaded.release();
  }
};
