/**
 * References in a pipeline file: `${{ params.NAME }}`, `${{ matrix.NAME }}` and `${{ item }}` (what a sweep is at), with
 * text around them or without; `${{ steps.ID.OUTPUT }}` alone.
 */

export type Reference =
  | { readonly _tag: "param"; readonly name: string }
  /** A value of the sweep that the step is in; `item` is that of foreach. */
  | { readonly _tag: "swept"; readonly name: string }
  | { readonly _tag: "output"; readonly step: string; readonly output: string };

/** What a string holds: no reference, exactly one and nothing else, or text with references in it. */
export type Template =
  | { readonly _tag: "literal"; readonly text: string }
  | { readonly _tag: "whole"; readonly reference: Reference }
  | { readonly _tag: "mixed"; readonly parts: ReadonlyArray<string | Reference> }
  | { readonly _tag: "malformed"; readonly text: string };

/** Names of params, steps and outputs. */
export const NAME = /^[A-Za-z_][A-Za-z0-9_-]*$/;

const parseReference = (inner: string): Reference | undefined => {
  const parts = inner.trim().split(".");
  if (!parts.every((part) => NAME.test(part))) return undefined;
  if (parts[0] === "params" && parts.length === 2) return { _tag: "param", name: parts[1] };
  if (parts[0] === "matrix" && parts.length === 2) return { _tag: "swept", name: parts[1] };
  if (parts[0] === "item" && parts.length === 1) return { _tag: "swept", name: "item" };
  if (parts[0] === "steps" && parts.length === 3) return { _tag: "output", step: parts[1], output: parts[2] };
  return undefined;
};

export const parseTemplate = (text: string): Template => {
  if (!text.includes("${{")) return { _tag: "literal", text };
  const parts: Array<string | Reference> = [];
  let at = 0;
  for (;;) {
    const open = text.indexOf("${{", at);
    if (open < 0) break;
    const close = text.indexOf("}}", open);
    if (close < 0) return { _tag: "malformed", text: text.slice(open) };
    const reference = parseReference(text.slice(open + 3, close));
    if (reference === undefined) return { _tag: "malformed", text: text.slice(open, close + 2) };
    if (open > at) parts.push(text.slice(at, open));
    parts.push(reference);
    at = close + 2;
  }
  if (at < text.length) parts.push(text.slice(at));
  const [only] = parts;
  return parts.length === 1 && typeof only !== "string" ? { _tag: "whole", reference: only } : { _tag: "mixed", parts };
};

export const showReference = (reference: Reference): string => {
  switch (reference._tag) {
    case "param":
      return `\${{ params.${reference.name} }}`;
    case "swept":
      return reference.name === "item" ? "${{ item }}" : `\${{ matrix.${reference.name} }}`;
    case "output":
      return `\${{ steps.${reference.step}.${reference.output} }}`;
  }
};
