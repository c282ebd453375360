/** Texts of strangers on a terminal. */

/** A text with what cannot be seen, or moves the cursor, named by its code. */
export const shown = (text: string): string =>
  Array.from(
    text.toWellFormed(),
    (c) =>
      /[\p{C}\p{Z}\p{Default_Ignorable_Code_Point}]/u.test(c) && c !== " "
        ? `[U+${(c.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}]`
        : c,
  ).join("");
