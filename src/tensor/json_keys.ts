/** JSON.parse keeps the last of two equal keys and says nothing; two readers of one file may then see different tensors. */

/** End (exclusive) of the JSON string that starts at `at`. */
const stringEnd = (text: string, at: number): number => {
  for (let i = at + 1; i < text.length; i++) {
    if (text[i] === "\\") i++;
    else if (text[i] === '"') return i + 1;
  }
  return text.length;
};

/** First key that stands twice in one object of a JSON text, at any depth. The text must be valid JSON. */
export const checkUniqueKeys = (text: string): string | undefined => {
  const open: Set<string>[] = [];
  const colon = /[ \t\r\n]*:/y;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (c === "{" || c === "[") open.push(new Set());
    else if (c === "}" || c === "]") open.pop();
    else if (c === '"') {
      const end = stringEnd(text, i);
      colon.lastIndex = end;
      if (colon.test(text)) {
        const key: string = JSON.parse(text.slice(i, end));
        const keys = open[open.length - 1];
        if (keys.has(key)) return key;
        keys.add(key);
      }
      i = end - 1;
    }
  }
  return undefined;
};
