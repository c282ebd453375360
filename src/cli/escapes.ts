/** Characters that cannot be typed or seen: `\u200b`, `\u{1f600}`, `\xa0`, `\n`, `\t`, `\\` in an argument. */

const SIMPLE: Readonly<Record<string, string>> = { n: "\n", t: "\t", r: "\r", "\\": "\\" };

/** Decodes the escapes of a text; a backslash that starts none stands for itself. */
export const decodeEscapes = (text: string): string =>
  text.replace(
    /\\(?:u\{([0-9a-fA-F]{1,6})\}|u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|([ntr\\]))/g,
    (whole, braced?: string, four?: string, two?: string, simple?: string) => {
      if (simple !== undefined) return SIMPLE[simple];
      const code = Number.parseInt(braced ?? four ?? two ?? "", 16);
      return code <= 0x10ffff ? (four ? String.fromCharCode(code) : String.fromCodePoint(code)) : whole;
    },
  );
