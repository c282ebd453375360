/** Tables in Markdown, and pages that hold some. */

/** Markdown, columns as wide as their widest cell; the first is text, the others are numbers. */
export const table = (head: readonly string[], rows: ReadonlyArray<readonly string[]>): string => {
  const all = [head, ...rows].map((cells) => cells.map((text) => text.replaceAll("|", "\\|")));
  const widths = head.map((_, i) => Math.max(2, ...all.map((cells) => cells[i].length)));
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  const [first, ...others] = all.map((cells) =>
    line(cells.map((text, i) => i === 0 ? text.padEnd(widths[i]) : text.padStart(widths[i])))
  );
  const rule = line(widths.map((w, i) => i === 0 ? "-".repeat(w) : `${"-".repeat(w - 1)}:`));
  return [first, rule, ...others].join("\n");
};

/**
 * A text with its tables made anew from `data`: each stands between `<!-- OWNER:NAME -->` and `<!-- OWNER end -->`.
 * @throws Error for a name that is none of the tables'
 */
export const filled = <A>(
  text: string,
  owner: string,
  tables: Readonly<Record<string, (data: A) => string>>,
  data: A,
): string =>
  text.replace(
    new RegExp(`(<!-- ${owner}:(\\w+) -->\n)[^]*?(<!-- ${owner} end -->)`, "gu"),
    (_, begin: string, name: string, end: string) => {
      if (!Object.hasOwn(tables, name)) {
        throw new Error(`there is no table ${name}; there are ${Object.keys(tables).join(", ")}`);
      }
      return `${begin}\n${tables[name](data)}\n\n${end}`;
    },
  );
