/**
 * Ports: the typed ends through which steps hand values to one another. A port knows how its values lie on disk, so
 * that the pipeline can cache them; the values themselves are plain, immutable data.
 * The ports of this project (captures, fields, masks, models…) are in ports.ts.
 */
import type { Effect } from "effect";
import type { Tensor } from "../tensor/tensor.ts";

/** A value as it lies in the cache: JSON beside float32 tensors (one value.json, one value.safetensors). */
export interface Stored {
  readonly json: unknown;
  readonly tensors: Readonly<Record<string, Tensor>>;
}

/** What of a value is to be handed back. */
export interface SaveOptions {
  /** Of a model that was opened with a LoRA: the cured LoRA alone, without the folder of the whole model. */
  readonly loraOnly?: boolean;
  /** Share of a layer's change that the cured LoRA's factors may miss (0.005 unless told). */
  readonly loraError?: number;
}

/**
 * A kind of value that steps exchange. Two ports fit together when their `kind` is the same.
 * (`encode` and `save` are written as methods so that a `Port<Mask>` may stand where a `Port<unknown>` is expected.)
 */
export interface Port<A> {
  /** Name of the kind, as error texts and `sau steps` show it. */
  readonly kind: string;
  readonly description: string;
  /** To disk form. Must lose nothing: `decode(encode(a))` behaves like `a`. */
  encode(value: A): Stored;
  /** From disk form. Throwing (or failing) counts as a damaged cache entry: the step runs again. */
  decode(stored: Stored): A | Effect.Effect<A, unknown>;
  /** Writes the value into the result folder `dir`, if it is something to hand back (a cured model). May give notes for its reader. */
  save?(value: A, dir: string, options?: SaveOptions): Effect.Effect<readonly string[] | void, unknown>;
  /** True on an input that may be left out. */
  readonly optional?: boolean;
}

/** An input that may be left out; the program then sees `undefined`. */
export interface OptionalPort<A> extends Port<A> {
  readonly optional: true;
}

/** The ports of one side of a step, by name. */
export type Ports = Readonly<Record<string, Port<unknown>>>;

/** The value type of a port. */
export type PortValue<P> = P extends Port<infer A> ? A : never;

/** What a program gets for its input ports: optional ones may be absent. */
export type InputValues<I extends Ports> =
  & { readonly [K in keyof I as I[K] extends { readonly optional: true } ? never : K]: PortValue<I[K]> }
  & { readonly [K in keyof I as I[K] extends { readonly optional: true } ? K : never]?: PortValue<I[K]> };

/** What a program gives for its output ports: every one. */
export type OutputValues<O extends Ports> = { readonly [K in keyof O]: PortValue<O[K]> };

export const Port = {
  /** A new kind of value. */
  make: <A>(port: {
    readonly kind: string;
    readonly description: string;
    readonly encode: (value: A) => Stored;
    readonly decode: (stored: Stored) => A | Effect.Effect<A, unknown>;
    readonly save?: (
      value: A,
      dir: string,
      options?: SaveOptions,
    ) => Effect.Effect<readonly string[] | void, unknown>;
  }): Port<A> => port,

  /** A kind of value that is JSON as it stands (numbers, strings, arrays, plain objects). */
  json: <A>(kind: string, description: string, decode: (json: unknown) => A): Port<A> => ({
    kind,
    description,
    encode: (value) => ({ json: value, tensors: {} }),
    decode: (stored) => decode(stored.json),
  }),

  /** The same kind as an input that may be left out. */
  optional: <A>(port: Port<A>): OptionalPort<A> => ({ ...port, optional: true }),
};
