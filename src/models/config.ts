/** Reading a network's config.json: what a key must hold, and a clear error where it does not. */

/** A config.json that names what no graph here can build, or lacks what one needs. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
  readonly key: string;
  constructor(key: string, problem: string) {
    super(`config.json, "${key}": ${problem}`);
    this.key = key;
  }
}

/** Typed access to the keys of a config.json. A default stands in for a key that is absent or null, as in diffusers. */
export class ConfigReader {
  readonly #json: Readonly<Record<string, unknown>>;

  constructor(json: unknown) {
    if (typeof json !== "object" || json === null || Array.isArray(json)) {
      throw new ConfigError("", "the file must hold a JSON object");
    }
    this.#json = json as Readonly<Record<string, unknown>>;
  }

  has(key: string): boolean {
    return this.#json[key] !== undefined && this.#json[key] !== null;
  }

  raw(key: string): unknown {
    return this.#json[key];
  }

  /** A whole number of at least `least`, and small enough that a stranger's file cannot ask for absurd sizes. */
  integer(key: string, fallback?: number, least = 1): number {
    return checkInteger(key, this.#given(key, fallback), least);
  }

  number(key: string, fallback?: number): number {
    const x = this.#given(key, fallback);
    if (typeof x !== "number" || !Number.isFinite(x)) throw new ConfigError(key, `${show(x)} is not a number`);
    return x;
  }

  boolean(key: string, fallback: boolean): boolean {
    const x = this.#given(key, fallback);
    if (typeof x !== "boolean") throw new ConfigError(key, `${show(x)} is not true or false`);
    return x;
  }

  string(key: string, fallback?: string): string {
    const x = this.#given(key, fallback);
    if (typeof x !== "string") throw new ConfigError(key, `${show(x)} is not a string`);
    return x;
  }

  strings(key: string): readonly string[] {
    const x = this.#given(key, undefined);
    if (!Array.isArray(x) || x.length === 0 || x.length > 64 || !x.every((s) => typeof s === "string")) {
      throw new ConfigError(key, `${show(x)} is not a list of names`);
    }
    return x;
  }

  integers(key: string): readonly number[] {
    const x = this.#given(key, undefined);
    if (!Array.isArray(x) || x.length === 0 || x.length > 64) {
      throw new ConfigError(key, `${show(x)} is not a list of whole numbers`);
    }
    return x.map((n) => checkInteger(key, n, 1));
  }

  /** One whole number for each of `count` blocks, given as a list or as one number for all. */
  perBlock(key: string, count: number, fallback?: number): readonly number[] {
    const x = this.#given(key, fallback);
    const list = Array.isArray(x) ? x : Array.from({ length: count }, () => x);
    if (list.length !== count) throw new ConfigError(key, `${list.length} numbers for ${count} blocks`);
    return list.map((n) => checkInteger(key, n, 1));
  }

  /** Refuses any value but the listed ones (null counts as absent), for features that the graph does not build. */
  only(key: string, allowed: readonly unknown[], why: string): void {
    const x = this.#json[key];
    if (x !== undefined && x !== null && !allowed.includes(x)) {
      throw new ConfigError(key, `${show(x)} is not supported: ${why}`);
    }
  }

  #given(key: string, fallback: unknown): unknown {
    const x = this.#json[key] ?? fallback;
    if (x === undefined) throw new ConfigError(key, "is missing");
    return x;
  }
}

const LARGEST = 1 << 20;

const checkInteger = (key: string, x: unknown, least: number): number => {
  if (typeof x !== "number" || !Number.isInteger(x) || x < least || x > LARGEST) {
    throw new ConfigError(key, `${show(x)} is not a whole number from ${least} to ${LARGEST}`);
  }
  return x;
};

const show = (x: unknown): string => {
  const text = JSON.stringify(x) ?? String(x);
  return text.length > 80 ? `${text.slice(0, 77)}…` : text;
};
