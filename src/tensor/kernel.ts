/**
 * The inner loop of all dense products, as WebAssembly of two doubles an instruction: JavaScript has one, and is a quarter as
 * fast. The module is small enough to be written down here, instruction by instruction (WebAssembly Core 2.0, §5.4).
 */

/** Side of the tile that is held in registers: 4 × 4 sums are 8 pairs. */
export const TILE = 4;

/** Unsigned LEB128 (§5.2.2). */
const u32 = (n: number): number[] => n < 128 ? [n] : [n % 128 + 128, ...u32(Math.floor(n / 128))];
const list = (items: readonly (readonly number[])[]): number[] => [...u32(items.length), ...items.flat()];
const section = (id: number, body: readonly number[]): number[] => [id, ...u32(body.length), ...body];
const name = (text: string): number[] => list([...new TextEncoder().encode(text)].map((byte) => [byte]));

const I32 = 0x7f, V128 = 0x7b, BYTES = 8;
const get = (local: number) => [0x20, ...u32(local)];
const set = (local: number) => [0x21, ...u32(local)];
const i32 = (n: number) => [0x41, n]; // below 64
const ADD = 0x6a, SUB = 0x6b, SHIFT = 0x74;
/** Adds to a local what the instructions leave. */
const advance = (local: number, by: readonly number[]) => [...get(local), ...by, ADD, ...set(local)];
const memory = (instruction: number, offset: number) => [0xfd, instruction, 3, ...u32(offset)];
const load = (offset: number) => memory(0x00, offset);
const splat = (offset: number) => memory(0x0a, offset); // one double into both halves
const store = (offset: number) => memory(0x0b, offset);
const F64X2_ADD = [0xfd, 0xf0, 0x01], F64X2_MUL = [0xfd, 0xf2, 0x01];
/** Runs the body as often as the local counts, at least once. */
const times = (local: number, body: readonly number[]) => [
  ...[0x03, 0x40, ...body, ...get(local), ...i32(1), SUB, 0x22, ...u32(local), 0x0d, 0],
  0x0b,
];

const products = (): Uint8Array<ArrayBuffer> => {
  // Parameters a, b, c, rows, columns, length; then counters and places, and the sums: row r has sums[2r] and sums[2r + 1].
  const [a, b, c, rows, columns, length, i, j, p, pa, pb, pc, first, second, one] = Array.from(
    { length: 15 },
    (_, x) => x,
  );
  const sums = Array.from({ length: 2 * TILE }, (_, x) => one + 1 + x);
  const row = Array.from({ length: TILE }, (_, r) => r);
  const panel = [...get(length), ...i32(5), SHIFT]; // bytes of a panel: length × 4 doubles
  const line = [...get(columns), ...i32(5), SHIFT]; // bytes from one row of c to the next
  const step = times(p, [
    ...[...get(pb), ...load(0), ...set(first), ...get(pb), ...load(16), ...set(second)],
    ...row.flatMap((r) => [
      ...[...get(pa), ...splat(BYTES * r), ...set(one)],
      ...[...get(sums[2 * r]), ...get(one), ...get(first), ...F64X2_MUL, ...F64X2_ADD, ...set(sums[2 * r])],
      ...[...get(sums[2 * r + 1]), ...get(one), ...get(second), ...F64X2_MUL, ...F64X2_ADD, ...set(sums[2 * r + 1])],
    ]),
    ...advance(pa, i32(TILE * BYTES)),
    ...advance(pb, i32(TILE * BYTES)),
  ]);
  const tile = [
    ...[...get(a), ...set(pa), ...get(length), ...set(p)],
    ...sums.flatMap((sum) => [0xfd, 0x0c, ...Array<number>(16).fill(0), ...set(sum)]),
    ...step,
    ...get(c),
    ...set(pc),
    ...row.flatMap((r) => [
      ...[...get(pc), ...get(sums[2 * r]), ...store(0), ...get(pc), ...get(sums[2 * r + 1]), ...store(16)],
      ...advance(pc, line),
    ]),
    ...advance(c, i32(TILE * BYTES)),
  ];
  const body = [
    ...get(rows),
    ...set(i),
    ...times(i, [
      ...[...get(b), ...set(pb), ...get(columns), ...set(j)],
      ...times(j, tile),
      ...advance(a, panel),
      // c stands at the end of the tile's first row: three rows more.
      ...advance(c, [...line, ...i32(1), SHIFT, ...line, ADD]),
    ]),
    0x0b,
  ];
  const whole = [...list([[6, I32], [3 + sums.length, V128]]), ...body];
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
    ...section(1, list([[0x60, ...list(Array(6).fill([I32])), 0]])),
    ...section(3, list([[0]])),
    ...section(5, list([[0x00, 1]])),
    ...section(7, list([[...name("memory"), 0x02, 0], [...name("products"), 0x00, 0]])),
    ...section(10, list([[...u32(whole.length), ...whole]])),
  ]);
};

export interface Kernel {
  readonly memory: WebAssembly.Memory;
  /**
   * Sums of products of panels: for `rows` panels at `a` and `columns` panels at `b`, each of `length` times {@link TILE}
   * doubles, c[i, j] = Σₚ aₚᵢ bₚⱼ, row by row of TILE · columns doubles. Places are bytes, counts at least 1.
   */
  readonly products: (a: number, b: number, c: number, rows: number, columns: number, length: number) => void;
}

let made: Kernel | undefined;
/** Compiled at the first call. */
export const kernel = (): Kernel => {
  made ??= new WebAssembly.Instance(new WebAssembly.Module(products())).exports as unknown as Kernel;
  return made;
};
