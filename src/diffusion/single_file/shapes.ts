/** Looking into a checkpoint's header: which tensors there are under a stem, and their shapes. */
import type { Header } from "../../tensor/safetensors.ts";

export interface Shapes {
  /** Dims of a tensor; empty where there is none. */
  readonly dims: (key: string) => readonly number[];
  readonly has: (key: string) => boolean;
  /** Whether any key begins so. */
  readonly any: (stem: string) => boolean;
  /** How many of `stem`0., `stem`1., … follow each other without a gap; at most 64. */
  readonly count: (stem: string) => number;
}

/** Shapes of the tensors whose keys begin with `prefix`, by the rest of the key. */
export const shapesOf = (header: Header, prefix: string): Shapes => {
  const own = new Map(
    [...header.entries].filter(([key]) => key.startsWith(prefix)).map(([key, e]) => [key.slice(prefix.length), e.dims]),
  );
  const keys = [...own.keys()];
  const any = (stem: string) => keys.some((key) => key.startsWith(stem));
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
