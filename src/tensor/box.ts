/** A rectangle of whole cells or pixels: columns x ≤ column < x + width, rows y ≤ row < y + height. */
export interface Box {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}
