/** Protocol Buffers wire format, writing only: the few field kinds that ONNX needs (protobuf.dev/programming-guides/encoding). */

const utf8 = new TextEncoder();

/** A message under construction. Nested messages are kept as pieces and joined once, at the end. */
export class Writer {
  readonly #pieces: Uint8Array[] = [];
  #length = 0;

  /** A varint field: int32, int64, enum. Negative numbers take ten bytes, as the format says. */
  int(field: number, value: number): this {
    return this.#push(varint(field * 8)).#push(varint(value));
  }

  float(field: number, value: number): this {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setFloat32(0, value, true);
    return this.#push(varint(field * 8 + 5)).#push(bytes);
  }

  string(field: number, value: string): this {
    return this.bytes(field, utf8.encode(value));
  }

  bytes(field: number, value: Uint8Array): this {
    return this.#push(varint(field * 8 + 2)).#push(varint(value.length)).#push(value);
  }

  message(field: number, message: Writer): this {
    this.#push(varint(field * 8 + 2)).#push(varint(message.#length));
    for (const piece of message.#pieces) this.#push(piece);
    return this;
  }

  finish(): Uint8Array {
    const out = new Uint8Array(this.#length);
    let at = 0;
    for (const piece of this.#pieces) {
      out.set(piece, at);
      at += piece.length;
    }
    return out;
  }

  #push(piece: Uint8Array): this {
    this.#pieces.push(piece);
    this.#length += piece.length;
    return this;
  }
}

const varint = (value: number): Uint8Array => {
  let rest = BigInt.asUintN(64, BigInt(value));
  const bytes: number[] = [];
  while (rest > 0x7fn) {
    bytes.push(Number(rest & 0x7fn) | 0x80);
    rest >>= 7n;
  }
  bytes.push(Number(rest));
  return Uint8Array.from(bytes);
};
