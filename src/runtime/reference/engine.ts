/** Runs a model node by node with the reference kernels; tensors lie in the host's memory. */
import type { DType } from "../../tensor/tensor.ts";
import type { Engine, Held, HostTensor, Loaded, ModelBytes } from "../engine.ts";
import { freeMemory } from "../host.ts";
import { kernels } from "./kernels.ts";
import { type Node, readModel, type Typed } from "./model.ts";

const values = new WeakMap<Held, Typed>();

const hold = (value: Typed): Held => {
  const held: Held = {
    dtype: value.dtype,
    dims: value.dims,
    read: () => Promise.resolve({ dims: value.dims, data: value.data }),
    dispose: () => void values.delete(held),
  };
  values.set(held, value);
  return held;
};

/** The index of the last node that takes each value, after which it can go. */
const lastUses = (nodes: readonly Node[], outputs: ReadonlySet<string>): string[][] => {
  const last = new Map<string, number>();
  nodes.forEach(({ inputs }, i) => inputs.forEach((name) => last.set(name, i)));
  const gone: string[][] = nodes.map(() => []);
  for (const [name, i] of last) if (!outputs.has(name)) gone[i].push(name);
  return gone;
};

/** Stands for an optional input that is left out. */
const ABSENT: Typed = { dtype: "float32", dims: [0], data: new Float32Array() };

const load = async (bytes: ModelBytes): Promise<Loaded> => {
  const { nodes, constants, inputs, outputs } = readModel(bytes);
  const unknown = nodes.find(({ type }) => !Object.hasOwn(kernels, type));
  if (unknown !== undefined) throw new Error(`there is no reference kernel for ${unknown.type}`);
  const gone = lastUses(nodes, new Set(outputs.keys()));

  const compute = (feeds: ReadonlyMap<string, Held>): ReadonlyMap<string, Held> => {
    const known = new Map<string, Typed>();
    for (const [name, held] of feeds) known.set(name, values.get(held)!);
    const valueOf = (name: string): Typed => {
      const value = known.get(name) ?? constants.get(name);
      if (value === undefined) throw new Error(`nothing makes the value "${name}"`);
      return value;
    };
    const given = (name: string): Typed => name === "" ? ABSENT : valueOf(name);
    for (const [i, { type, inputs, output, attributes }] of nodes.entries()) {
      known.set(output, kernels[type](inputs.map(given), attributes));
      for (const name of gone[i]) known.delete(name);
    }
    return new Map([...outputs.keys()].map((name) => [name, hold(valueOf(name))]));
  };

  return await Promise.resolve({
    inputs,
    outputs,
    lanes: 1,
    // Between two runs others may have their turn: cancellation, progress.
    run: async (feeds) => {
      await new Promise((resume) => setTimeout(resume, 0));
      return compute(feeds);
    },
    release: () => Promise.resolve(),
  });
};

/** A copy, as the caller may reuse what it fed. */
const upload = ({ dims, data }: HostTensor, dtype: DType): Held => hold({ dtype, dims, data: data.slice() });

export const referenceEngine = (): Engine => ({
  backend: "reference",
  lanes: 1,
  room: freeMemory,
  load,
  wrap: ({ dims, data }, dtype) => hold({ dtype, dims, data }),
  upload,
  close: () => Promise.resolve(),
});
