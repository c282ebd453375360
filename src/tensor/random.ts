/**
 * Deterministic random numbers without state: the i-th number of a seed depends on the seed and i alone, so results do
 * not depend on the order of work, and a longer draw begins with the shorter one.
 * Generator: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC'11).
 */
import { createHash } from "node:crypto";
import { size, type Tensor } from "./tensor.ts";

/** A whole number within ±(2⁵³ − 1), or any text (hashed with {@link seedOf}). */
export type Seed = number | string;

/**
 * Derives a seed from a root seed and the names of what it is for: `seedOf(0, "denoise", "prompt", 3)`.
 * The first 53 bits of SHA-256 over the JSON array of all arguments: different names give unrelated seeds, and the
 * result is a whole number that JSON keeps exactly.
 */
export const seedOf = (root: number, ...names: readonly (string | number)[]): number => {
  const digest = createHash("sha256").update(JSON.stringify([root, ...names])).digest();
  return digest.readUIntBE(0, 6) * 32 + (digest[6] >>> 3);
};

/** What the words are for. A part of the counter, so that a uniform and a normal draw of one seed share no words. */
const STREAM = { uniform: 0, normal: 1, choice: 2 } as const;

/** Upper 32 bits of the product of two unsigned 32-bit numbers, by 16-bit halves: a double cannot hold 64 bits. */
const multiplyHigh = (a: number, b: number): number => {
  const al = a & 0xffff, ah = a >>> 16, bl = b & 0xffff, bh = b >>> 16;
  const low = al * bl, mid = ah * bl + (low >>> 16), mid2 = al * bh + (mid & 0xffff);
  return ah * bh + Math.floor(mid / 0x10000) + Math.floor(mid2 / 0x10000);
};

/**
 * One Philox4x32-10 block: four 32-bit counter words and two key words give four random 32-bit words, written to
 * `out[at .. at + 3]`.
 */
export const philox = (
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
  out: Uint32Array,
  at = 0,
): void => {
  let c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
  for (let round = 0; round < 10; round++) {
    const low0 = Math.imul(0xd2511f53, c0), high0 = multiplyHigh(0xd2511f53, c0 >>> 0);
    const low1 = Math.imul(0xcd9e8d57, c2), high1 = multiplyHigh(0xcd9e8d57, c2 >>> 0);
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 = (k0 + 0x9e3779b9) | 0;
    k1 = (k1 + 0xbb67ae85) | 0;
  }
  out[at] = c0;
  out[at + 1] = c1;
  out[at + 2] = c2;
  out[at + 3] = c3;
};

const words = (seed: Seed, stream: number, count: number): Uint32Array => {
  const value = typeof seed === "string" ? seedOf(0, seed) : seed;
  if (!Number.isSafeInteger(value)) {
    throw new RangeError(`random: the seed ${value} is not a whole number within ±(2^53 − 1)`);
  }
  const key: [number, number] = [value >>> 0, Math.floor(value / 0x100000000) >>> 0];
  const out = new Uint32Array(Math.ceil(count / 4) * 4);
  const counter: [number, number, number, number] = [0, 0, 0, stream];
  for (; counter[0] * 4 < count; counter[0]++) philox(counter, key, out, counter[0] * 4);
  return out;
};

/** Doubles in [0, 1) with all 53 bits random, two words each. */
const doubles = (seed: Seed, stream: number, count: number): Float64Array => {
  const w = words(seed, stream, 2 * count);
  const out = new Float64Array(count);
  for (let i = 0; i < count; i++) out[i] = ((w[2 * i] >>> 5) * 0x4000000 + (w[2 * i + 1] >>> 6)) / 0x20000000000000;
  return out;
};

/** Uniform numbers in [0, 1), float32: 24 random bits each, so that 1 cannot come about by rounding. */
export const uniform = (seed: Seed, dims: readonly number[]): Tensor => {
  const data = new Float32Array(size(dims));
  const w = words(seed, STREAM.uniform, data.length);
  for (let i = 0; i < data.length; i++) data[i] = (w[i] >>> 8) / 0x1000000;
  return { dims, data };
};

/** Standard normal numbers, float32, by Box and Muller (1958): two numbers from two words, |x| ≤ 6.7. */
export const normal = (seed: Seed, dims: readonly number[]): Tensor => {
  const data = new Float32Array(size(dims));
  const w = words(seed, STREAM.normal, data.length + (data.length & 1));
  for (let i = 0; i < data.length; i += 2) {
    const radius = Math.sqrt(-2 * Math.log((w[i] + 1) / 0x100000000)); // in (0, 1]: the logarithm stays finite
    const angle = 2 * Math.PI * (w[i + 1] / 0x100000000);
    data[i] = radius * Math.cos(angle);
    if (i + 1 < data.length) data[i + 1] = radius * Math.sin(angle);
  }
  return { dims, data };
};

/** `count` whole numbers in [0, below), each equally likely (to within below / 2⁵³). */
export const integers = (seed: Seed, below: number, count: number): Uint32Array => {
  const u = doubles(seed, STREAM.choice, count);
  const out = new Uint32Array(count);
  for (let i = 0; i < count; i++) out[i] = u[i] * below; // an assignment to Uint32Array rounds down
  return out;
};

/** A random order of the items (Fisher–Yates); the argument is left alone. */
export const shuffle = <A>(seed: Seed, items: readonly A[]): A[] => sample(seed, items, items.length);

/** `count` different items in random order: the beginning of what {@link shuffle} gives. At most all of them. */
export const sample = <A>(seed: Seed, items: readonly A[], count: number): A[] => {
  const out = [...items];
  const n = Math.min(count, out.length);
  const u = doubles(seed, STREAM.choice, n);
  for (let i = 0; i < n; i++) {
    const j = i + Math.floor(u[i] * (out.length - i));
    [out[i], out[j]] = [out[j], out[i]];
  }
  return out.slice(0, n);
};

/** One of the items. @throws RangeError when there is none. */
export const pick = <A>(seed: Seed, items: readonly A[]): A => {
  if (items.length === 0) throw new RangeError("pick: there is nothing to pick from");
  return sample(seed, items, 1)[0];
};

/** `count` items, the same one as often as it comes, each as likely as its share of all shares (≥ 0); all alike if none has any. */
export const drawByShare = <A>(
  items: readonly A[],
  share: (item: A) => number,
  count: number,
  seed: Seed,
): A[] => {
  let total = 0;
  const ends = items.map((item) => total += share(item));
  if (!(total > 0)) return [...integers(seed, items.length, count)].map((i) => items[i]);
  return Array.from(doubles(seed, STREAM.choice, count), (u) => items[ends.findIndex((end) => end > u * total)]);
};
