/** Looking into a checkpoint's header: which tensors there are under a stem, and their shapes. */
import type { Header } from "../../tensor/safetensors.ts";

export interface Shapes {
  /** Dims of a tensor; empty where there is none. */
  readonly dims: (key: string) => readonly number[];
  readonly has: (key: string) => boolean;
  /** Whether any key begins so; the stem is empty or ends with a dot. */
  readonly any: (stem: string) => boolean;
  /** How many of `stem`0., `stem`1., … follow each other without a gap; at most 64. */
  readonly count: (stem: string) => number;
}

/** Names of a network have fewer parts; a stranger's key may have any number. */
const MAX_PARTS = 12;

/** Shapes of the tensors whose keys begin with `prefix`, by the rest of the key. */
export const shapesOf = (header: Header, prefix: string): Shapes => {
  const own = new Map(
    [...header.entries].filter(([key]) => key.startsWith(prefix)).map(([key, e]) => [key.slice(prefix.length), e.dims]),
  );
  const stems = new Set(own.size > 0 ? [""] : []);
  for (const key of own.keys()) {
    for (let at = key.indexOf("."), n = 0; at >= 0 && n < MAX_PARTS; at = key.indexOf(".", at + 1), n++) {
      stems.add(key.slice(0, at + 1));
    }
  }
  const any = (stem: string) => stems.has(stem);
  return {
    dims: (key) => own.get(key) ?? [],
    has: (key) => own.has(key),
    any,
    count: (stem) => {
      let n = 0;
      while (n < 64 && any(`${stem}${n}.`)) n++;
      return n;
    },
  };
};
