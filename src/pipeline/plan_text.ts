/** A plan as people read it: a tree for the terminal, a flowchart for Markdown pages. */
import type { Pipeline } from "./link.ts";
import type { Plan, PlanStep } from "./plan.ts";

const mermaidText = (text: string): string => text.replace(/["<>&#]/g, (c) => `#${c.charCodeAt(0)};`);

/** The plan as a Mermaid flowchart: inputs on the arrows, what is cached green, what runs with its reason. */
export const formatMermaid = <R>(pipeline: Pipeline<R>, { steps }: Plan): string => {
  const node = new Map(steps.map(({ id }, i) => [id, `s${i}`]));
  const nodes = steps.map(({ id, use, cached, reason }) => {
    const why = cached ? "cached" : reason;
    return `  ${node.get(id)}["${mermaidText(id)}: ${mermaidText(use)}<br/>${mermaidText(why)}"]:::${
      cached ? "cached" : "runs"
    }`;
  });
  const edges = pipeline.steps.flatMap(({ id, inputs }) =>
    Object.entries(inputs).map(([name, wire]) => `  ${node.get(wire.step)} -->|${mermaidText(name)}| ${node.get(id)}`)
  );
  const classes = ["  classDef cached fill:#dff5e1,stroke:#2e7d32", "  classDef runs fill:#fff3d6,stroke:#b26a00"];
  return ["flowchart TD", ...nodes, ...edges, ...classes].join("\n");
};

/** Why a step runs, short: that it takes from steps that run says nothing where the tree shows it. */
const shortReason = ({ cached, reason }: PlanStep): string => {
  if (cached) return "cached";
  const own = reason.split("; ").filter((part) => !/^input .*: step .* must run$/.test(part));
  return own.length === 0 ? "runs: it takes from what runs" : `runs: ${own.join("; ")}`;
};

/**
 * The plan as a tree: each step once, under the last of those that it takes from, in the order in which they run. What it
 * takes from others as well stands behind a plus, the pipeline's outputs behind an arrow.
 */
export const formatPlan = <R>(pipeline: Pipeline<R>, { steps }: Plan): string => {
  const order = new Map(steps.map(({ id }, i) => [id, i]));
  const parentOf = ({ needs }: PlanStep): string | undefined =>
    needs.toSorted((a, b) => order.get(a)! - order.get(b)!).at(-1);
  const children = Map.groupBy(steps, parentOf);
  const handed = Map.groupBy(Object.entries(pipeline.outputs), ([, wire]) => wire.step);

  const rows: { readonly left: string; readonly use: string; readonly right: string }[] = [];
  const walk = (step: PlanStep, lead: string, below: string): void => {
    const others = step.needs.filter((id) => id !== parentOf(step));
    const outputs = (handed.get(step.id) ?? []).map(([name]) => name);
    const right = [
      ...(others.length === 0 ? [] : [`+ ${others.join(", ")}`]),
      ...(outputs.length === 0 ? [] : [`→ ${outputs.join(", ")}`]),
      shortReason(step),
    ].join("  ");
    rows.push({ left: `${lead}${step.cached ? "✓" : "▸"} ${step.id}`, use: step.use, right });
    const next = children.get(step.id) ?? [];
    next.forEach((child, i) => {
      const last = i === next.length - 1;
      walk(child, `${below}${last ? "└─" : "├─"} `, `${below}${last ? "   " : "│  "}`);
    });
  };
  for (const root of children.get(undefined) ?? []) walk(root, "  ", "  ");

  const [width, uses] = [rows.map((r) => r.left.length), rows.map((r) => r.use.length)].map((all) => Math.max(...all));
  const absent = Object.entries(pipeline.leftOut ?? {}).map(([id, why]) => `  · ${id}: left out (${why})`);
  const n = steps.filter(({ cached }) => !cached).length;
  const summary = n === 0 ? "everything is cached" : `${n} of ${steps.length} steps run`;
  return [
    `${pipeline.name}: ${summary}`,
    ...rows.map(({ left, use, right }) => `${left.padEnd(width)}  ${use.padEnd(uses)}  ${right}`),
    ...absent,
  ].join("\n");
};
