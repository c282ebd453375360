/** What the documentation's pages hold that can be checked: fenced blocks, and links. */
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("../../", import.meta.url));

export interface Block {
  readonly file: string;
  /** Line of the fence, from 1. */
  readonly line: number;
  readonly language: string;
  readonly text: string;
  /** The comment in the line above: `<!-- not run: why -->` or `<!-- run -->`. */
  readonly note: string;
}

export const pages: readonly string[] = [
  "README.md",
  ...readdirSync(`${root}docs`, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".md")).map((name) => `docs/${name}`).sort(),
];

const linesOf = (file: string): string[] => readFileSync(root + file, "utf8").split("\n");

/** @throws where a fence is not closed */
export const blocksOf = (file: string): Block[] => {
  const lines = linesOf(file);
  const blocks: Block[] = [];
  for (let i = 0; i < lines.length; i++) {
    const language = /^```(\w*)/.exec(lines[i])?.[1];
    if (language === undefined) continue;
    const end = lines.indexOf("```", i + 1);
    if (end < 0) throw new Error(`${file}:${i + 1}: the block is not closed`);
    const above = lines.slice(Math.max(0, i - 2), i).filter((line) => line !== "").at(-1) ?? "";
    const note = /^<!-- (.+) -->$/.exec(above)?.[1] ?? "";
    blocks.push({ file, line: i + 1, language, text: lines.slice(i + 1, end).join("\n"), note });
    i = end;
  }
  return blocks;
};

/** Relative links of a page, outside blocks, with their lines. */
export const linksOf = (file: string): { readonly line: number; readonly target: string }[] => {
  let inside = false;
  return linesOf(file).flatMap((text, i) => {
    if (text.startsWith("```")) inside = !inside;
    if (inside) return [];
    return [...text.matchAll(/\]\(([^)\s]+)\)/g)].map(([, target]) => ({ line: i + 1, target }))
      .filter(({ target }) => !/^(https?:|#)/.test(target));
  });
};
