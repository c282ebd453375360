/** "Did you mean": the nearest valid name, and lists of names for error texts. */

/** Edit distance in which swapping two neighbouring letters counts as one mistake (optimal string alignment). */
const distance = (a: string, b: string): number => {
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const swap = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1] ? rows[i - 2][j - 2] + 1 : Infinity;
      row.push(
        Math.min(rows[i - 1][j] + 1, row[j - 1] + 1, rows[i - 1][j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1), swap),
      );
    }
    rows.push(row);
  }
  return rows[a.length][b.length];
};

/** The nearest of `names`, when it is near enough to be what was meant: a third of the letters may differ. */
export const nearest = (name: string, names: Iterable<string>): string | undefined => {
  // A name is never this long by accident, and the comparison is quadratic.
  if (name.length > 64) return undefined;
  let best: string | undefined;
  let least = Math.min(name.length, Math.ceil(name.length / 3) + 1);
  for (const candidate of names) {
    const d = distance(name.toLowerCase(), candidate.toLowerCase());
    if (d < least) [best, least] = [candidate, d];
  }
  return best;
};

/** `a, b or c`, at most twelve of them. */
export const listNames = (names: Iterable<string>): string => {
  const all = [...names];
  if (all.length === 0) return "(none)";
  if (all.length > 12) return `${all.slice(0, 11).join(", ")} and ${all.length - 11} others`;
  return all.length === 1 ? all[0] : `${all.slice(0, -1).join(", ")} or ${all[all.length - 1]}`;
};

/** What to say about a name that does not exist. */
export const suggestion = (name: string, names: Iterable<string>): { hint?: string; expected: string } => {
  const all = [...names];
  const near = nearest(name, all);
  return { expected: listNames(all), ...(near === undefined ? {} : { hint: `did you mean "${near}"?` }) };
};
