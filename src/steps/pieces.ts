/**
 * Pieces of a step's work that are kept while it is under way: a long step that was stopped goes on after the last one.
 * A step says what a piece is; whoever runs it keeps them, or, without a cache, nobody does.
 */
import { Context, Effect } from "effect";
import type { Tensor } from "../tensor/tensor.ts";
import { Port } from "./port.ts";

/** Something that keeps pieces. */
export interface PieceKeeper {
  /** The piece of that name from an earlier try at the same step, else what `make` gives, which is kept. */
  readonly piece: <A, E, R>(name: string, port: Port<A>, make: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>;
}

/** Makes every piece anew. */
export const NO_PIECES: PieceKeeper = { piece: (_name, _port, make) => make };

export const Pieces: Context.Reference<PieceKeeper> = Context.Reference<PieceKeeper>("sau/steps/Pieces", {
  defaultValue: () => NO_PIECES,
});

/** A piece of the running step: `yield* piece("batch 3", TensorsPort, evaluate(batch))`. */
export const piece = <A, E, R>(name: string, port: Port<A>, make: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.flatMap(Pieces, (keeper) => keeper.piece(name, port, make));

export type Tensors = Readonly<Record<string, Tensor>>;

export const TensorsPort: Port<Tensors> = Port.make<Tensors>({
  kind: "tensors",
  description: "Tensors by name.",
  encode: (tensors) => ({ json: null, tensors }),
  decode: ({ tensors }) => tensors,
});
