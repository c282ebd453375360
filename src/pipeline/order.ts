/** The order in which steps run, and the circles among them. */
import type { Path } from "./source.ts";

/** "This step needs `to`", said at `path` of the file. */
export interface Edge {
  readonly to: string;
  readonly path: Path;
}

export interface Cycle {
  /** First and last are the same step. */
  readonly steps: ReadonlyArray<string>;
  /** The reference that closes the circle. */
  readonly path: Path;
}

/**
 * Depth first, in the order of the file: a step comes after everything it needs, and otherwise where it was written.
 * Every reference that leads back onto the path being walked is one cycle.
 */
export const sortSteps = (
  ids: ReadonlyArray<string>,
  edges: ReadonlyMap<string, ReadonlyArray<Edge>>,
): { readonly order: ReadonlyArray<string>; readonly cycles: ReadonlyArray<Cycle> } => {
  const order: string[] = [];
  const cycles: Cycle[] = [];
  const done = new Set<string>();
  // An explicit stack: a file may chain thousands of steps.
  for (const start of ids) {
    const stack: Array<{ readonly id: string; next: number }> = [];
    const onStack = new Set<string>();
    const enter = (id: string) => {
      stack.push({ id, next: 0 });
      onStack.add(id);
    };
    if (!done.has(start)) enter(start);
    while (stack.length > 0) {
      const top = stack[stack.length - 1];
      const edge = (edges.get(top.id) ?? [])[top.next++];
      if (edge === undefined) {
        stack.pop();
        onStack.delete(top.id);
        done.add(top.id);
        order.push(top.id);
      } else if (onStack.has(edge.to)) {
        const from = stack.findIndex(({ id }) => id === edge.to);
        cycles.push({ steps: [...stack.slice(from).map(({ id }) => id), edge.to], path: edge.path });
      } else if (!done.has(edge.to) && edges.has(edge.to)) {
        enter(edge.to);
      }
    }
  }
  return { order, cycles };
};
