/** Weights of files, read once and shared by all who read them in a process that stays: a server's runs. */
import { Context } from "effect";

/** Bytes by what tells one state of a file from another; beyond the limit go those that were not used for longest. */
export class SharedFiles {
  readonly #limit: number;
  readonly #files = new Map<string, Uint8Array>();
  #bytes = 0;

  /** @param limit bytes that are kept */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** What is kept now, in bytes. */
  get bytes(): number {
    return this.#bytes;
  }

  get(key: string): Uint8Array | undefined {
    const found = this.#files.get(key);
    if (found !== undefined) {
      this.#files.delete(key);
      this.#files.set(key, found);
    }
    return found;
  }

  put(key: string, bytes: Uint8Array): void {
    if (this.#files.has(key) || bytes.length > this.#limit) return;
    this.#files.set(key, bytes);
    this.#bytes += bytes.length;
    for (const [oldest, { length }] of this.#files) {
      if (this.#bytes <= this.#limit) return;
      this.#files.delete(oldest);
      this.#bytes -= length;
    }
  }
}

/** Where weights are kept between readings; nowhere, unless somebody provides a place. */
export const Shared: Context.Reference<SharedFiles | undefined> = Context.Reference<SharedFiles | undefined>(
  "sau/diffusion/Shared",
  { defaultValue: () => undefined },
);
