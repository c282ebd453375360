/** The reference of steps, from their definitions: facts for `sau steps`, a page of Markdown for docs/steps.md. */
import type { AnyStep } from "../steps/step.ts";
import { describeSettings, type SettingInfo } from "./describe.ts";

export interface PortInfo {
  readonly name: string;
  readonly kind: string;
  readonly description: string;
}

export interface StepInfo {
  readonly name: string;
  readonly version: number;
  readonly description: string;
  readonly inputs: ReadonlyArray<PortInfo & { readonly required: boolean }>;
  readonly settings: ReadonlyArray<SettingInfo>;
  readonly outputs: ReadonlyArray<PortInfo>;
}

/** What a definition says, as plain data. */
export const describeStep = (step: AnyStep): StepInfo => ({
  name: step.name,
  version: step.version,
  description: step.description,
  inputs: Object.entries(step.inputs).map(([name, { kind, description, optional = false }]) => ({
    name,
    kind,
    description,
    required: !optional,
  })),
  // A default path is relative to the pipeline file; this machine's folder says nothing about it.
  settings: describeSettings(step.settings).map(({ fallback, ...info }) =>
    fallback === undefined || info.type === "a path" ? info : { ...info, fallback }
  ),
  outputs: Object.entries(step.outputs).map(([name, { kind, description }]) => ({ name, kind, description })),
});

const cell = (text: string): string => text.replaceAll("|", "\\|").replaceAll("\n", " ");

const tableOf = (head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): string =>
  [head, head.map(() => "---"), ...rows].map((row) => `| ${row.map(cell).join(" | ")} |`).join("\n");

const portTable = (title: string, ports: ReadonlyArray<PortInfo & { readonly required?: boolean }>): string =>
  tableOf(
    [title, "kind", "meaning"],
    ports.map((p) => [`\`${p.name}\``, p.required === false ? `${p.kind}, optional` : p.kind, p.description]),
  );

/** A setting's rows: its own, and one for each key of a mapping. */
const settingRows = (
  { name, type, bounds, description, required, fallback, within = [] }: SettingInfo,
  above = "",
): string[][] => [
  [
    `\`${above}${name}\``,
    [within.length > 0 ? type.replaceAll(/a mapping of .+?(?= or |$)/g, "a mapping") : type, bounds]
      .filter((text) => text !== undefined).join(", ").replaceAll(/(a mapping)( or a mapping)+/g, "$1"),
    // A mapping's own rows say its defaults.
    within.length > 0 && typeof fallback === "object"
      ? ""
      : fallback !== undefined
      ? `\`${JSON.stringify(fallback)}\``
      : required && above === ""
      ? "must be given"
      : "",
    description,
  ],
  ...within.flatMap((inner) => settingRows(inner, `${above}${name}.`)),
];

/**
 * A use of the step: inputs from the first step that gives their kind, what must be given from parameters. What may be left
 * out is taken from steps further up alone, so that all uses together are one pipeline without a circle.
 */
const example = (step: StepInfo, all: ReadonlyArray<StepInfo>): string => {
  const above = all.slice(0, all.indexOf(step));
  const wires = step.inputs.flatMap(({ name, kind, required }) => {
    const from = required ? all : above;
    const source = from.find((other) => other !== step && other.outputs.some((output) => output.kind === kind));
    const output = source?.outputs.find((o) => o.kind === kind);
    return source === undefined || output === undefined ? [] : [`${name}: \${{ steps.${source.name}.${output.name} }}`];
  });
  const needed = step.settings.flatMap(({ name, required }) => required ? [`${name}: \${{ params.${name} }}`] : []);
  const lines = [...wires, ...needed];
  return [
    `${step.name}:`,
    `  use: ${step.name}`,
    ...(lines.length === 0 ? [] : ["  with:", ...lines.map((line) => `    ${line}`)]),
  ].join("\n");
};

const section = (step: StepInfo, all: ReadonlyArray<StepInfo>): string =>
  [
    `## ${step.name}`,
    `${step.description} Version ${step.version}.`,
    `\`\`\`yaml\n${example(step, all)}\n\`\`\``,
    ...(step.inputs.length === 0 ? [] : [portTable("input", step.inputs)]),
    ...(step.settings.length === 0
      ? []
      : [tableOf(["setting", "type", "default", "meaning"], step.settings.flatMap((s) => settingRows(s)))]),
    ...(step.outputs.length === 0 ? [] : [portTable("output", step.outputs)]),
  ].join("\n\n");

/** The whole page. */
export const stepsPage = (steps: ReadonlyArray<AnyStep>): string => {
  const all = steps.map(describeStep);
  const contents = all.map(({ name, description }) => [`[${name}](#${name})`, description]);
  return `${
    [
      "<!-- Made from the definitions of the steps: sau steps --markdown > docs/steps.md -->",
      "# Steps",
      "What `use:` may name in a [pipeline file](pipelines.md). An input takes an output of the same kind. A setting takes a " +
      "value or a parameter. `sau steps` prints the same in a terminal, `sau steps --json` for programs.",
      tableOf(["step", "what it does"], contents),
      ...all.map((step) => section(step, all)),
    ].join("\n\n")
  }\n`;
};
