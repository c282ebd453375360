/** An inspection for the terminal. */
import type { Comparison, Description, Fact, Finding, Inspection, PartChange } from "../diffusion/inspection.ts";
import { byteText, fileSizeText } from "../tensor/bytes.ts";
import { table } from "./terminal.ts";

/** Tensors that are listed of each part, those that moved most; the page and --json have all. */
const MOST_TENSORS = 16;
const MOST_FILES = 60;
const MOST_BLOCKS = 30;

const number = (n: number): string => n.toLocaleString("en");

/** `6.1 M`, `2.6 B`. */
export const parametersText = (n: number): string =>
  n >= 1e9 ? `${(n / 1e9).toFixed(2)} B` : n >= 1e6 ? `${(n / 1e6).toFixed(1)} M` : number(n);

const percent = (x: number | null): string => {
  if (x === null) return "from 0";
  if (x === 0) return "0";
  return x >= 1 ? `×${Number(x.toPrecision(3))}` : `${Number((100 * x).toPrecision(2))} %`;
};

const factLine = (facts: readonly Fact[]): string => facts.map(({ name, value }) => `${name} ${value}`).join("; ");

const indent = (text: string, by: string): string => text.split("\n").map((line) => `${by}${line}`).join("\n");

const findingText = ({ code, severity, what, why, todo, where, count }: Finding): string => {
  const more = count > where.length ? [`… and ${number(count - where.length)} more`] : [];
  return [
    `  ${severity === "warn" ? "!" : "·"} ${what} [${code}]`,
    `      ${why}`,
    `      ${todo}`,
    ...[...where, ...more].map((line) => `        ${line}`),
  ].join("\n");
};

const findingsText = (findings: readonly Finding[]): string => {
  const warnings = findings.filter((f) => f.severity === "warn").length;
  const notes = findings.length - warnings;
  const head = findings.length === 0
    ? "Nothing odd was found."
    : `Odd: ${warnings} ${warnings === 1 ? "warning" : "warnings"} (!), ${notes} ${notes === 1 ? "note" : "notes"} (·)`;
  return [head, ...findings.map(findingText)].join("\n");
};

const describe = (d: Description): string => {
  const parts = [
    ["part", "class", "parameters", "bytes", "types", "tensors", "SHA-256 of its tensors"],
    ...d.parts.map((p) => [
      p.name,
      p.class,
      number(p.parameters),
      byteText(p.bytes),
      Object.entries(p.dtypes).map(([name, { tensors }]) => `${name} × ${tensors}`).join(", "),
      Object.entries(p.kinds).map(([name, { tensors }]) => `${tensors} ${name}`).join(", "),
      p.sha256.slice(0, 16),
    ]),
  ];
  const tokenizer = d.tokenizer === null ? [] : [
    `tokenizer: ${number(d.tokenizer.tokens)} tokens, ${
      number(d.tokenizer.merges)
    } merges, at most ${d.tokenizer.maxLength} a text, ${
      d.tokenizer.added.length === 0 ? "no added ones" : `${d.tokenizer.added.length} added`
    }`,
  ];
  const files = d.files.slice(0, MOST_FILES).map((f) => [f.path, f.use, fileSizeText(f.bytes), f.sha256 ?? "not read"]);
  return [
    `${d.path}: ${d.title}`,
    `  ${parametersText(d.parameters)} parameters, ${byteText(d.bytes)}${
      d.facts.length === 0 ? "" : `; ${factLine(d.facts)}`
    }`,
    table(parts, "  "),
    ...d.parts.filter((p) => p.facts.length > 0).map((p) => `  ${p.name}: ${factLine(p.facts)}`),
    ...tokenizer.map((line) => `  ${line}`),
    "",
    findingsText(d.findings),
    "",
    "Files, with their SHA-256:",
    table(files, "  "),
    ...(d.files.length > MOST_FILES ? [`  … and ${d.files.length - MOST_FILES} more (--json has all)`] : []),
  ].join("\n");
};

const rankText = (rank: PartChange["tensors"][number]["rank"]): string =>
  rank === null ? "" : rank.of99 === null ? `more than ${rank.sought} of ${rank.full}` : `${rank.of99} of ${rank.full}`;

const partText = (part: PartChange): string => {
  const all = part.tensors.filter((t) => t.state === "moved");
  const matrices = all.filter((t) => t.dims.length > 1);
  // Vectors move far with little effect: they are listed only where nothing else moved.
  const moved = (matrices.length > 0 ? matrices : all).sort((a, b) =>
    (b.relative ?? Infinity) - (a.relative ?? Infinity)
  );
  const blocks = part.blocks.filter((b) => b.moved > 0).slice(0, MOST_BLOCKS);
  const lines = [`${part.name}: ${part.headline}`, `  ${part.reading}`];
  if (blocks.length > 0) {
    lines.push(table([
      ["block", "moved", "‖Δ‖/‖W‖"],
      ...blocks.map((b) => [b.name, `${b.moved} of ${b.tensors}`, percent(b.relative)]),
    ], "  "));
  }
  if (moved.length > 0) {
    lines.push(table([
      ["layer", "what", "shape", "‖Δ‖/‖W‖", "directions for 99 %"],
      ...moved.slice(0, MOST_TENSORS).map((t) => [
        t.layer,
        t.kind === "bias" ? `${t.role} (bias)` : t.role,
        t.dims.join(" × "),
        percent(t.relative),
        rankText(t.rank),
      ]),
    ], "  "));
    if (all.length > Math.min(moved.length, MOST_TENSORS)) {
      lines.push(`  … and ${all.length - Math.min(moved.length, MOST_TENSORS)} more (--json and --out have all)`);
    }
  }
  if (part.rows.length > 0) {
    lines.push("  rows of embeddings that moved:");
    lines.push(table(
      part.rows.slice(0, MOST_TENSORS).map((
        r,
      ) => [r.text === null ? "" : JSON.stringify(r.text), `row ${r.row}`, percent(r.relative)]),
      "    ",
    ));
  }
  const keys = [
    ["only in the first", part.onlyFirst],
    ["only in the second", part.onlySecond],
    ["not compared", part.reshaped],
  ] as const;
  for (const [what, list] of keys) {
    if (list.length > 0) {
      lines.push(`  ${what}: ${list.slice(0, 6).join(", ")}${list.length > 6 ? `, … (${list.length})` : ""}`);
    }
  }
  return lines.join("\n");
};

const compare = (c: Comparison, first: string, second: string): string =>
  [
    `From ${first} to ${second}`,
    "",
    ...c.parts.flatMap((part) => [partText(part), ""]),
    ...(c.onlyFirst.length > 0 ? [`Only the first holds ${c.onlyFirst.join(", ")}.`] : []),
    ...(c.onlySecond.length > 0 ? [`Only the second holds ${c.onlySecond.join(", ")}.`] : []),
    ...(c.settings.length === 0 ? ["Configs and tokenizer say the same in both, where both have them."] : [
      "Settings that differ:",
      ...c.settings.map((s) => `  ${s.where}: ${s.first ?? "none"} → ${s.second ?? "none"}`),
    ]),
  ].join("\n");

/** What a stranger's file says could change the terminal or read backwards: it is named instead. */
const safe = (text: string): string =>
  text.toWellFormed().replace(/(?!\n)[\p{C}\p{Zl}\p{Zp}]/gu, (c) => `\\u{${(c.codePointAt(0) ?? 0).toString(16)}}`);

/** The whole inspection. */
export const formatInspection = (i: Inspection): string =>
  safe(
    i.comparison === null || i.other === null ? describe(i) : [
      compare(i.comparison, i.path, i.other.path),
      "",
      `The first, ${i.path}`,
      indent(findingsText(i.findings), "  "),
      `The second, ${i.other.path}`,
      indent(findingsText(i.other.findings), "  "),
    ].join("\n"),
  );
