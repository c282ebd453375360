/**
 * HTML with every string escaped. A report shows texts of strangers (prompts, triggers, file names, error messages), so
 * the only way to markup is this template tag; what it makes is an `Html`, and everything else is text.
 */

/** Characters that draw nothing or reorder what is drawn: a name could hide behind them, or read backwards. */
const CONTROLS = /(?![\n\t])[\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}]/gu;

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/** `U+200B` */
export const codePoint = (character: string): string =>
  `U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}`;

/** Text for an element or a quoted attribute. Invisible characters are named, `[U+200B]`. */
export const escape = (text: string): string =>
  text.toWellFormed().replace(CONTROLS, (c) => `[${codePoint(c)}]`).replace(/[&<>"']/g, (c) => ENTITIES[c]);

/** Finished markup. Only `markup` makes it. */
export class Html {
  readonly source: string;
  constructor(source: string) {
    this.source = source;
  }
}

/** What may stand in a template: false, null and undefined leave nothing. */
export type Content = Html | string | number | false | null | undefined | readonly Content[];

const render = (content: Content): string => {
  if (content instanceof Html) return content.source;
  if (content === false || content === null || content === undefined) return "";
  if (typeof content === "object") return content.map(render).join("");
  return escape(String(content));
};

/**
 * Markup from a literal whose values are escaped. Attribute values must stand in double quotes.
 * (It is not called `html`, since formatters would then put white space into it, which shows between inline elements.)
 */
export const markup = (literal: TemplateStringsArray, ...values: readonly Content[]): Html =>
  new Html(literal.map((part, i) => i === 0 ? part : render(values[i - 1]) + part).join(""));

/** True for content that leaves nothing. */
export const isEmpty = (content: Content): boolean => render(content).trim() === "";
