/** Where a step went wrong whose loss or gradient is no finite number: the first tensor that is to blame, by name. */
import { Effect } from "effect";
import type { StateTensor } from "../graph/training.ts";
import { size } from "../tensor/tensor.ts";
import type { HostTensor } from "./engine.ts";
import { type DeviceTensor, toHost } from "./session.ts";

export interface FailedStep {
  readonly state: readonly StateTensor[];
  /** What the step was given besides the state. */
  readonly data: Readonly<Record<string, HostTensor | DeviceTensor>>;
  /** The state before the step, and the one that it would have left, both by the name of the input. */
  readonly before: ReadonlyMap<string, DeviceTensor>;
  readonly after: ReadonlyMap<string, DeviceTensor>;
  /** The names of inputs in the order in which the network meets them. */
  readonly order: readonly string[];
}

/**
 * Looks at the data, at the weights, and at the gradients by what they did to their first moments (a step does not clip
 * what has no norm). Of several gradients the first one is that of the weight which the network meets last: the backward
 * pass comes from there.
 *
 * @returns undefined when all of it is finite, as where sums overflow.
 */
export const faultOf = Effect.fnUntraced(function* ({ state, data, before, after, order }: FailedStep) {
  for (const [name, tensor] of Object.entries(data)) {
    const value = notFinite(yield* toHost(tensor));
    if (value !== undefined) return `the input ${name} holds ${value}`;
  }
  for (const { role, input } of state) {
    if (role !== "weight") continue;
    const value = notFinite(yield* toHost(before.get(input)!));
    if (value !== undefined) return `the weight ${input} holds ${value}`;
  }
  const elements = new Map(state.flatMap(({ weight, role, dims }) => role === "weight" ? [[weight, size(dims)]] : []));
  const found: string[] = [];
  for (const { role, input, weights } of state) {
    if (role !== "first") continue;
    const moments = yield* toHost(after.get(input)!);
    let end = 0;
    for (const weight of weights) {
      const data = moments.data.subarray(end, end += elements.get(weight)!);
      if (notFinite({ dims: [data.length], data }) !== undefined) found.push(weight);
    }
  }
  const [first] = found.sort((a, b) => order.indexOf(b) - order.indexOf(a));
  if (first === undefined) return undefined;
  const others = found.length === 1 ? "" : `, the first of ${found.length} on the way back from the loss`;
  return `the gradient of ${first} is not finite${others}`;
});

/** The first element that is none. */
const notFinite = ({ data }: HostTensor): number | undefined =>
  data instanceof Float32Array ? data.find((x) => !Number.isFinite(x)) : undefined;
