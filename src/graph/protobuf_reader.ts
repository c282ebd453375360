/**
 * Protocol Buffers wire format, reading only (protobuf.dev/programming-guides/encoding). The bytes come from strangers: whatever
 * they are, every position stays inside them, and no field is taken for longer than what is left.
 */

/** Bytes that are no sound message. `at` is the byte of the input at which that shows. */
export class ProtobufError extends Error {
  override readonly name = "ProtobufError";
  readonly at: number;
  constructor(at: number, message: string) {
    super(message);
    this.at = at;
  }
}

/** A field's value: a number (varint, fixed32 or fixed64 as its bits) or where its bytes lie. */
export interface Field {
  readonly number: number;
  readonly wire: 0 | 1 | 2 | 5;
  /** Of a varint as the format has it: unsigned, of 64 bits. */
  readonly value: bigint;
  /** Where the payload of a length-delimited field begins and ends. */
  readonly begin: number;
  readonly end: number;
}

const truncated = (at: number): ProtobufError => new ProtobufError(at, "is truncated");

/** A varint from a position on. @returns its value and where it ends. @throws ProtobufError */
export const readVarint = (bytes: Uint8Array, at: number, end: number): readonly [bigint, number] => {
  // Nearly all are small: these need no BigInt arithmetic.
  let low = 0;
  for (let i = 0; i < 4; i++) {
    if (at + i >= end) throw truncated(at);
    const byte = bytes[at + i];
    low += (byte & 0x7f) * 2 ** (7 * i);
    if (byte < 0x80) return [BigInt(low), at + i + 1];
  }
  let value = BigInt(low);
  for (let i = 4; i < 10; i++) {
    if (at + i >= end) throw truncated(at);
    const byte = bytes[at + i];
    value |= BigInt(byte & 0x7f) << BigInt(7 * i);
    if (byte < 0x80) return [BigInt.asUintN(64, value), at + i + 1];
  }
  throw new ProtobufError(at, "holds a number of more than 10 bytes");
};

const MAX_FIELD = 2n ** 29n;

/**
 * A field's tag and, of a length-delimited one, its length.
 * @param limit where the message ends; it may lie beyond the bytes that are given
 * @returns the field; the next one begins at its `end`
 * @throws ProtobufError
 */
export const readField = (bytes: Uint8Array, at: number, limit = bytes.length): Field => {
  const [tag, from] = readVarint(bytes, at, Math.min(bytes.length, limit));
  const number = tag >> 3n;
  const wire = Number(tag & 7n);
  if (number === 0n || number >= MAX_FIELD) throw new ProtobufError(at, `has a field of number ${number}`);
  const whole = { number: Number(number) };
  const fits = (end: number) => {
    if (end > limit) throw truncated(at);
    return end;
  };
  if (wire === 0) {
    const [value, end] = readVarint(bytes, from, Math.min(bytes.length, limit));
    return { ...whole, wire, value, begin: from, end };
  }
  if (wire === 1 || wire === 5) {
    return { ...whole, wire, value: 0n, begin: from, end: fits(from + (wire === 1 ? 8 : 4)) };
  }
  if (wire !== 2) throw new ProtobufError(at, `has a field of wire type ${wire}`);
  const [length, begin] = readVarint(bytes, from, Math.min(bytes.length, limit));
  if (length > BigInt(limit - begin)) throw truncated(at);
  return { ...whole, wire, value: 0n, begin, end: begin + Number(length) };
};

/** The fields of a message that is in memory. @throws ProtobufError */
export function* fieldsOf(bytes: Uint8Array): Generator<Field> {
  for (let at = 0; at < bytes.length;) {
    const field = readField(bytes, at);
    yield field;
    at = field.end;
  }
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** A field's bytes. @throws ProtobufError where it is none that has bytes */
export const bytesIn = (bytes: Uint8Array, field: Field): Uint8Array => {
  if (field.wire !== 2) throw new ProtobufError(field.begin, `has a number where field ${field.number} holds bytes`);
  return bytes.subarray(field.begin, field.end);
};

/** A field as text of at most `longest` bytes. @throws ProtobufError */
export const textIn = (bytes: Uint8Array, field: Field, longest: number): string => {
  const own = bytesIn(bytes, field);
  if (own.length > longest) {
    throw new ProtobufError(field.begin, `holds a name of ${own.length} bytes; at most ${longest} are read`);
  }
  try {
    return utf8.decode(own);
  } catch {
    throw new ProtobufError(field.begin, "holds a name that is not UTF-8");
  }
};

/** A field as a whole number that JavaScript holds exactly; int64 is signed. @throws ProtobufError */
export const integerIn = (field: Field): number => {
  const value = Number(BigInt.asIntN(64, field.value));
  if (field.wire !== 0 || !Number.isSafeInteger(value)) {
    throw new ProtobufError(field.begin, `holds ${field.wire === 0 ? value : "bytes"} where a small number belongs`);
  }
  return value;
};

/** Whole numbers of a repeated field: one, or several packed. At most `most`. @throws ProtobufError */
export const integersIn = (bytes: Uint8Array, field: Field, most: number): number[] => {
  if (field.wire === 0) return [integerIn(field)];
  const own = bytesIn(bytes, field);
  const out: number[] = [];
  for (let at = 0; at < own.length;) {
    const [value, end] = readVarint(own, at, own.length);
    out.push(integerIn({ ...field, wire: 0, value }));
    if (out.length > most) throw new ProtobufError(field.begin, `lists more than ${most} numbers`);
    at = end;
  }
  return out;
};
