/** An ONNX file on disk, field by field: what follows of a graph may be gigabytes of weights, which are passed over. */
import { type Field, ProtobufError, readField } from "../../graph/protobuf_reader.ts";

/** Fields that are walked over on disk; real files have some hundred thousand. */
const MOST_FIELDS = 5_000_000;

/** An ONNX file that is not read here. */
export class OnnxError extends Error {
  override readonly name = "OnnxError";
  readonly tensor: string | undefined;
  constructor(message: string, tensor?: string) {
    super(message);
    this.tensor = tensor;
  }
}

/** Fills `into` from a position of the file on, or rejects. */
export type Read = (into: Uint8Array, position: number) => Promise<void>;

/** A file read in windows: what follows is mostly small and side by side. */
export class Window {
  static readonly #SIZE = 1 << 20;
  readonly #read: Read;
  readonly size: number;
  /** Fields that were walked over so far. */
  fields = 0;
  #begin = 0;
  #bytes = new Uint8Array(0);

  constructor(read: Read, size: number) {
    this.#read = read;
    this.size = size;
  }

  /** `length` bytes from a position on, or as many as there are. */
  async at(position: number, length: number): Promise<Uint8Array> {
    const end = Math.min(position + length, this.size);
    if (position < this.#begin || end > this.#begin + this.#bytes.length) {
      const bytes = new Uint8Array(Math.min(Math.max(length, Window.#SIZE), this.size - position));
      await this.#read(bytes, position);
      this.#begin = position;
      this.#bytes = bytes;
    }
    return this.#bytes.subarray(position - this.#begin, end - this.#begin);
  }
}

/** A tag and a length take at most 20 bytes, and so does a number with its tag. */
const LONGEST_HEAD = 20;

/** The fields of a message in the file between two positions; their positions are the file's. */
export async function* fieldsIn(file: Window, begin: number, end: number): AsyncGenerator<Field> {
  for (let at = begin; at < end;) {
    const head = await file.at(at, LONGEST_HEAD);
    const field = readField(head, 0, end - at);
    if (++file.fields > MOST_FIELDS) throw new OnnxError(`holds more than ${MOST_FIELDS} fields`);
    yield { ...field, begin: at + field.begin, end: at + field.end };
    at += field.end;
  }
}

/** A small field's bytes, with the field as it stands in them. */
export const small = async (file: Window, field: Field, longest: number): Promise<readonly [Uint8Array, Field]> => {
  if (field.wire !== 2) return [new Uint8Array(0), field];
  const length = field.end - field.begin;
  if (length > longest) throw new ProtobufError(field.begin, `holds ${length} bytes where at most ${longest} belong`);
  return [await file.at(field.begin, length), { ...field, begin: 0, end: length }];
};
