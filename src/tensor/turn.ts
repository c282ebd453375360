/** Matrices as bytes, turned over. */

type Elements = Uint8Array | Uint16Array | Uint32Array | BigUint64Array;

/** Rows and columns of a block: what is read and what is written of it both stay in the processor's cache. */
const BLOCK = 32;

const elementsOf = (bytes: Uint8Array, width: number): Elements => {
  // A copy where the bytes do not begin where such elements may.
  const { buffer, byteOffset, length } = bytes.byteOffset % width === 0 ? bytes : new Uint8Array(bytes);
  const count = length / width;
  if (width === 1) return new Uint8Array(buffer, byteOffset, count);
  if (width === 2) return new Uint16Array(buffer, byteOffset, count);
  if (width === 4) return new Uint32Array(buffer, byteOffset, count);
  return new BigUint64Array(buffer, byteOffset, count);
};

/**
 * A matrix of `rows` × `columns` elements as `columns` × `rows`.
 * @param width bytes of an element: 1, 2, 4 or 8
 */
export const turnedOver = (bytes: Uint8Array, rows: number, columns: number, width: number): Uint8Array => {
  const from = elementsOf(bytes, width);
  const out = new Uint8Array(bytes.length);
  const to = elementsOf(out, width);
  for (let i0 = 0; i0 < rows; i0 += BLOCK) {
    const i1 = Math.min(rows, i0 + BLOCK);
    for (let j0 = 0; j0 < columns; j0 += BLOCK) {
      const j1 = Math.min(columns, j0 + BLOCK);
      for (let i = i0; i < i1; i++) for (let j = j0; j < j1; j++) to[j * rows + i] = from[i * columns + j];
    }
  }
  return out;
};
