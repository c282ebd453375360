/**
 * Checkpoints in one file name their tensors as the code that trained them does (CompVis, Stability's SGM, OpenCLIP). A table of
 * rules says what diffusers and transformers call them. A tensor of the network is a view of the file's bytes, so what is
 * written back goes to the place that it came from.
 */
import type { Entry, Header } from "../../tensor/safetensors.ts";

/** One name, or a stem of names (it ends with a dot), in the file and in the network. */
export interface Rule {
  readonly file: string;
  readonly network: string;
  /** The network's tensor is one of so many equal parts of the file's rows: [which, of how many]. */
  readonly rows?: readonly [number, number];
  /** `matrix`: a convolution of 1×1 in the file, a matrix in the network. `transposed`: a matrix turned over. */
  readonly as?: "matrix" | "transposed";
}

/** A tensor of a network as a view of one of the file's. */
export interface View {
  /** As the file calls it. */
  readonly key: string;
  /** As the network calls it. */
  readonly name: string;
  /** As the network has it; positions are those of the file. */
  readonly entry: Entry;
  readonly transposed: boolean;
}

/** What follows a rule's stem, or undefined where the rule does not speak of the name. */
const rest = (stem: string, key: string): string | undefined =>
  key === stem ? "" : stem.endsWith(".") && key.startsWith(stem) ? key.slice(stem.length) : undefined;

/** The part of a file's tensor that a rule speaks of, or undefined where its shape does not allow it. */
const viewOf = (entry: Entry, key: string, name: string, rule: Rule): View | undefined => {
  let { dims, begin, end } = entry;
  if (rule.rows !== undefined) {
    const [which, of] = rule.rows;
    if (dims.length === 0 || dims[0] % of !== 0) return undefined;
    const size = (end - begin) / of;
    dims = [dims[0] / of, ...dims.slice(1)];
    [begin, end] = [begin + which * size, begin + (which + 1) * size];
  }
  if (rule.as === "matrix" && dims.length === 4 && dims[2] === 1 && dims[3] === 1) dims = dims.slice(0, 2);
  const transposed = rule.as === "transposed";
  if (transposed) {
    if (dims.length !== 2) return undefined;
    dims = [dims[1], dims[0]];
  }
  return { key, name, entry: { dtype: entry.dtype, dims, begin, end }, transposed };
};

/**
 * The network's tensors among a file's, in the order of their bytes.
 * @param prefix begins the key of every tensor of this network
 */
export const viewsOf = (header: Header, prefix: string, rules: readonly Rule[]): View[] => {
  const views: View[] = [];
  for (const [key, entry] of header.entries) {
    if (!key.startsWith(prefix)) continue;
    const own = key.slice(prefix.length);
    for (const rule of rules) {
      const tail = rest(rule.file, own);
      const view = tail === undefined ? undefined : viewOf(entry, key, rule.network + tail, rule);
      if (view !== undefined) views.push(view);
    }
  }
  return views.toSorted((a, b) => a.entry.begin - b.entry.begin);
};
