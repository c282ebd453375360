/** Two checkpoints tensor by tensor: how far each moved, and in how many directions. */
import { Effect } from "effect";
import { addDifference, type Difference, FRACTION_BITS, noDifference, roundingVariance } from "../tensor/difference.ts";
import { MOST_SKETCHED, rankFor, spectrum } from "../tensor/spectrum.ts";
import type { BundleError } from "./errors.ts";
import { commonName, placeOf } from "./inspect_names.ts";
import { readingOf } from "./inspect_reading.ts";
import { type OnBytes, readStretch, type WeightsFile } from "./inspect_weights.ts";
import type { PartChange, PartFacts, Summary, TensorChange, TensorFacts } from "./inspection.ts";

/** Elements in memory at once, of each of the two. */
const STRETCH = 1 << 22;
/** Changes of more elements than this are summed up but not held as a whole (256 MB), so that their rank stays unknown. */
const LARGEST = 1 << 26;
/**
 * A difference counts as rounding up to this many times what rounding gives on average: a rounded number is at most half
 * a step off, and the square of that is three times the mean square.
 */
const ROUNDING = 3;
/** An embedding of which fewer rows than this moved has them named. */
const NAMED_ROWS = 64;

/** Parts of ‖Δ‖² that its directions are counted for. */
const SHARES = [0.99, 0.9999];

/** A part, and the files that its tensors lie in. */
export interface Side {
  readonly facts: PartFacts;
  readonly files: readonly WeightsFile[];
}

interface Moved {
  readonly sums: Difference;
  readonly rows: number;
  /** ‖Δ‖² by row, of an embedding. */
  readonly byRow: Float64Array | undefined;
  readonly delta: Float32Array | undefined;
}

/** The coarser of two element types: the one that rounding is to be blamed on. */
const coarser = (a: string, b: string): string => (FRACTION_BITS[a] ?? 99) <= (FRACTION_BITS[b] ?? 99) ? a : b;

/** Reads one tensor of both sides, stretch by stretch. Undefined where an element type is not read here. */
const difference = Effect.fnUntraced(function* (
  [a, fromA]: readonly [TensorFacts, WeightsFile],
  [b, fromB]: readonly [TensorFacts, WeightsFile],
  onBytes: OnBytes,
): Effect.fn.Return<Moved | undefined, BundleError> {
  const count = a.parameters, rowLength = Math.max(1, count / Math.max(1, a.dims[0] ?? 1));
  const variance = roundingVariance(coarser(a.dtype, b.dtype));
  const sums = noDifference();
  const touched = new Uint8Array(a.dims[0] ?? 1);
  const byRow = a.kind === "embedding" ? new Float64Array(a.dims[0]) : undefined;
  const delta = a.dims.length > 1 && count <= LARGEST ? new Float32Array(count) : undefined;
  for (let at = 0; at < count; at += STRETCH) {
    const length = Math.min(STRETCH, count - at);
    const first = yield* readStretch(fromA, a.key, at, length);
    const second = yield* readStretch(fromB, b.key, at, length);
    if (first === undefined || second === undefined) return undefined;
    addDifference(sums, first, second, variance);
    for (let i = 0; i < length; i++) {
      if (second[i] === 0) continue;
      const row = Math.floor((at + i) / rowLength);
      touched[row] = 1;
      if (byRow !== undefined) byRow[row] += second[i] * second[i];
    }
    delta?.set(second, at);
    yield* onBytes(length);
  }
  let rows = 0;
  for (const one of touched) rows += one;
  return { sums, rows, byRow, delta };
});

const same = (t: TensorFacts): TensorChange => ({
  key: t.key,
  dims: t.dims,
  kind: t.kind,
  layer: t.layer,
  role: t.role,
  state: "same",
  relative: 0,
  norm: 0,
  changed: 0,
  rows: 0,
  rank: null,
});

const rankOf = ({ dims }: TensorFacts, delta: Float32Array, noise: number): TensorChange["rank"] => {
  const rows = dims[0], columns = delta.length / rows;
  if (Math.min(rows, columns) < 2) return null;
  const found = spectrum(delta, rows, columns, SHARES, noise);
  if (found.total === 0) return null;
  const [of99, of9999] = SHARES.map((share) => rankFor(found, share, noise) ?? null);
  return {
    of99,
    of9999,
    full: found.full,
    sought: found.exact ? found.full : MOST_SKETCHED,
    leading: found.energies.length === 0 ? null : Math.sqrt(found.energies[0] / found.total),
  };
};

const changeOf = (t: TensorFacts, { sums, rows, delta }: Moved): TensorChange => {
  const state = sums.changed === 0 ? "same" : sums.squares <= ROUNDING * sums.rounding ? "rounding" : "moved";
  return {
    ...same(t),
    state,
    relative: sums.base > 0 ? Math.sqrt(sums.squares / sums.base) : sums.squares === 0 ? 0 : null,
    norm: Math.sqrt(sums.squares),
    changed: sums.changed / Math.max(1, sums.count),
    rows,
    rank: state === "moved" && delta !== undefined ? rankOf(t, delta, sums.rounding) : null,
  };
};

interface Energies {
  readonly change: TensorChange;
  readonly squares: number;
  readonly base: number;
}

const summaryOf = (name: string, group: readonly Energies[]): Summary => {
  const sum = (of: (e: Energies) => number) => group.reduce((n, e) => n + of(e), 0);
  const base = sum((e) => e.base);
  return {
    name,
    tensors: group.length,
    moved: group.filter(({ change }) => change.state === "moved").length,
    relative: base > 0 ? Math.sqrt(sum((e) => e.squares) / base) : 0,
  };
};

const summaries = (all: readonly Energies[], by: (c: TensorChange) => string): Summary[] =>
  [...Map.groupBy(all, ({ change }) => by(change))].map(([name, group]) => summaryOf(name, group));

/**
 * Compares one part of two checkpoints. Tensors with the same hash are not read again.
 * @param tokenOf the text of a token, to name rows of embeddings
 */
export const compareParts = Effect.fnUntraced(function* (
  a: Side,
  b: Side,
  options: { readonly tokenOf: (id: number) => string | null; readonly onBytes: OnBytes },
): Effect.fn.Return<PartChange, BundleError> {
  const second = new Map(b.facts.tensors.map((t) => [commonName(t.key), t]));
  const first = new Map(a.facts.tensors.map((t) => [commonName(t.key), t]));
  const fileOf = (side: Side, t: TensorFacts) => side.files.find((f) => f.name === t.file);
  const all: Energies[] = [];
  const reshaped: string[] = [];
  const rows: PartChange["rows"][number][] = [];
  for (const [name, t] of first) {
    const other = second.get(name);
    if (other === undefined) continue;
    if (other.parameters !== t.parameters) {
      reshaped.push(`${t.key}: [${t.dims.join(", ")}] → [${other.dims.join(", ")}]`);
      continue;
    }
    const base = (t.rms ?? 0) ** 2 * t.parameters;
    if (other.sha256 === t.sha256 && other.dtype === t.dtype) {
      all.push({ change: same(t), squares: 0, base });
      continue;
    }
    const [fromA, fromB] = [fileOf(a, t), fileOf(b, other)];
    if (fromA === undefined || fromB === undefined) continue;
    const moved = yield* difference([t, fromA], [other, fromB], options.onBytes);
    if (moved === undefined) {
      reshaped.push(`${t.key}: ${t.dtype} → ${other.dtype}, values not read`);
      continue;
    }
    const change = changeOf(t, moved);
    all.push({ change, squares: moved.sums.squares, base });
    if (moved.byRow !== undefined && change.state === "moved" && moved.rows < Math.min(NAMED_ROWS, t.dims[0])) {
      const ofRow = Math.sqrt(base / t.dims[0]);
      [...moved.byRow].flatMap((squares, row) => squares > 0 ? [[row, squares] as const] : [])
        .sort((x, y) => y[1] - x[1])
        .forEach(([row, squares]) =>
          rows.push({
            key: t.key,
            row,
            text: /token_embedding|shared/.test(t.key) ? options.tokenOf(row) : null,
            relative: ofRow > 0 ? Math.sqrt(squares) / ofRow : null,
          })
        );
    }
  }
  const only = (x: ReadonlyMap<string, TensorFacts>, y: ReadonlyMap<string, TensorFacts>) =>
    [...x].filter(([name]) => !y.has(name)).map(([, t]) => t.key);
  const change: PartChange = {
    name: a.facts.name,
    total: summaryOf(a.facts.name, all),
    blocks: summaries(all, ({ key }) => placeOf(key).block),
    roles: summaries(all, ({ role }) => role),
    tensors: all.map(({ change }) => change),
    onlyFirst: only(first, second),
    onlySecond: only(second, first),
    reshaped,
    rows,
    headline: "",
    reading: "",
  };
  return { ...change, ...readingOf(change) };
});
