/**
 * The head of a safetensors file: 8 bytes of header length (little-endian u64), a JSON header, then the tensors' bytes without gaps.
 * The files come from strangers, so every number of the header is checked before it is used.
 * Format: https://github.com/huggingface/safetensors#format (the limits here are those of its reference reader).
 */
import { checkUniqueKeys } from "./json_keys.ts";

/** Bytes of one element. Types that are listed here but that `readTensor` cannot read may still stand in a file. */
const WIDTH = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U64: 8,
  U32: 4,
  U16: 2,
  U8: 1,
  BOOL: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
} as const;

/** Element type as the file names it. */
export type FileDType = keyof typeof WIDTH;

/** One tensor of a file. `begin` and `end` are byte positions in the file, its header included. */
export interface Entry {
  readonly dtype: FileDType;
  readonly dims: readonly number[];
  readonly begin: number;
  readonly end: number;
}

/** What a file holds. `bytes` is where the tensors start; `entries` stand in the order of their bytes. */
export interface Header {
  readonly file: string;
  readonly entries: ReadonlyMap<string, Entry>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly bytes: number;
}

/** A file that is no sound safetensors file, or values that do not fit into it. */
export class SafetensorsError extends Error {
  readonly file: string;
  readonly key: string | undefined;
  constructor(file: string, key: string | undefined, message: string) {
    super(message);
    this.name = "SafetensorsError";
    this.file = file;
    this.key = key;
  }
}

/** The reference reader's limit for the JSON header, in bytes. */
export const MAX_HEADER = 100_000_000;

/** Bytes of one element of a file type. */
export const widthOf = (dtype: FileDType): number => WIDTH[dtype];

const isDType = (name: unknown): name is FileDType => typeof name === "string" && Object.hasOwn(WIDTH, name);
const isCount = (n: unknown): n is number => Number.isSafeInteger(n) && Number(n) >= 0 && !Object.is(n, -0);
const isObject = (v: unknown): v is Record<string, unknown> => typeof v === "object" && v !== null && !Array.isArray(v);

/**
 * Where the tensors start, from the first 8 bytes: 8 + length of the JSON header.
 * @throws SafetensorsError when the length is beyond the format's limit or the file's end.
 */
export const dataStart = (first: Uint8Array, fileSize: number, file: string): number => {
  if (fileSize < 8 || first.length < 8) {
    throw new SafetensorsError(file, undefined, `has ${fileSize} bytes; a safetensors file has at least 8`);
  }
  const length = new DataView(first.buffer, first.byteOffset, 8).getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER)) {
    const message =
      `claims a header of ${length} bytes; at most ${MAX_HEADER} are allowed (is this a safetensors file?)`;
    throw new SafetensorsError(file, undefined, message);
  }
  const start = 8 + Number(length);
  if (start > fileSize) {
    const message = `is truncated: its header needs ${start} bytes, the file has ${fileSize}`;
    throw new SafetensorsError(file, undefined, message);
  }
  return start;
};

const headerObject = (bytes: Uint8Array, start: number, file: string): Record<string, unknown> => {
  const bad = (what: string) => new SafetensorsError(file, undefined, what);
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes.subarray(8, start));
  } catch {
    throw bad("has a header that is not UTF-8");
  }
  if (!text.startsWith("{")) throw bad("has a header that does not start with {");
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (e) {
    throw bad(`has a header that is not JSON (${e instanceof Error ? e.message : e})`);
  }
  if (!isObject(json)) throw bad("has a header that is not a JSON object");
  const twice = checkUniqueKeys(text);
  if (twice !== undefined) {
    throw new SafetensorsError(file, twice, `names ${JSON.stringify(twice)} twice in its header`);
  }
  return json;
};

const metadataOf = (value: unknown, file: string): Record<string, string> => {
  if (value === undefined) return {};
  if (!isObject(value)) throw new SafetensorsError(file, "__metadata__", "has __metadata__ that is not an object");
  const strings = Object.entries(value).filter((e): e is [string, string] => typeof e[1] === "string");
  if (strings.length !== Object.keys(value).length) {
    throw new SafetensorsError(file, "__metadata__", "has __metadata__ with values other than strings");
  }
  return Object.fromEntries(strings);
};

const entryOf = (key: string, value: unknown, start: number, file: string): Entry => {
  const bad = (what: string) => new SafetensorsError(file, key, `${key}: ${what}`);
  if (!isObject(value)) throw bad("its header entry is not an object");
  const { dtype, shape, data_offsets } = value;
  if (!isDType(dtype)) {
    throw bad(`element type ${JSON.stringify(dtype)} is not known; expected one of ${Object.keys(WIDTH).join(", ")}`);
  }
  if (!Array.isArray(shape) || !shape.every(isCount)) throw bad("its shape is not a list of whole numbers ≥ 0");
  if (!Array.isArray(data_offsets) || data_offsets.length !== 2 || !data_offsets.every(isCount)) {
    throw bad("its data_offsets are not two whole numbers ≥ 0");
  }
  const [from, to] = data_offsets;
  // Checked factor by factor: a product beyond 2⁵³ would round and could agree by accident.
  let need: number = WIDTH[dtype];
  for (const d of shape) {
    need *= d;
    if (!Number.isSafeInteger(need)) throw bad(`shape [${shape.join(", ")}] has too many elements`);
  }
  if (to - from !== need) {
    throw bad(`shape [${shape.join(", ")}] of ${dtype} takes ${need} bytes, its data_offsets hold ${to - from}`);
  }
  return { dtype, dims: shape, begin: start + from, end: start + to };
};

/**
 * Reads and checks a header. Tensors must follow each other without gap or overlap and fill the file exactly.
 * @param bytes the file, or at least its first 8 + header length bytes
 * @param fileSize length of the whole file in bytes
 * @param file name for errors
 * @throws SafetensorsError
 */
export const parseHeader = (bytes: Uint8Array, fileSize: number, file: string): Header => {
  const start = dataStart(bytes, fileSize, file);
  if (bytes.length < start) {
    throw new SafetensorsError(file, undefined, `${bytes.length} bytes were given, its header needs ${start}`);
  }
  const { __metadata__, ...rest } = headerObject(bytes, start, file);
  const list = Object.entries(rest).map(([key, value]) => [key, entryOf(key, value, start, file)] as const);
  list.sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
  let at = start;
  for (const [key, { begin, end }] of list) {
    if (begin !== at) {
      const what = begin < at ? "overlaps the tensor before it" : "leaves a gap to the tensor before it";
      throw new SafetensorsError(file, key, `${key}: ${what} (starts at byte ${begin}, expected ${at})`);
    }
    at = end;
  }
  if (at > fileSize) {
    const key = list.find(([, e]) => e.end > fileSize)?.[0];
    const message = `is truncated: its tensors need ${at} bytes, the file has ${fileSize} (first one cut: ${key})`;
    throw new SafetensorsError(file, key, message);
  }
  if (at < fileSize) {
    throw new SafetensorsError(
      file,
      undefined,
      `has ${fileSize - at} bytes after its last tensor (expected ${at} in all)`,
    );
  }
  return { file, entries: new Map(list), metadata: metadataOf(__metadata__, file), bytes: start };
};
