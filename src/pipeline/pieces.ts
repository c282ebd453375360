/** Pieces of a step that is under way, as entries of the cache: they are there for the next try, and go with its result. */
import { Effect } from "effect";
import type { PieceKeeper } from "../steps/pieces.ts";
import type { Cache } from "./cache.ts";
import { hashValue } from "./hash.ts";

/** What keeps the pieces of the step with this key; `forget` removes those that this run used. */
export const openPieces = (cache: Cache, key: string, use: string) => {
  const used = new Set<string>();
  const keeper: PieceKeeper = {
    piece: (name, port, make) =>
      Effect.gen(function* () {
        const at = hashValue([key, "piece", name]);
        used.add(at);
        const found = yield* cache.get(at, { piece: port });
        // Written by this port: the key is of the very step, settings and inputs.
        if (found._tag === "hit") return found.outputs.piece as Effect.Success<typeof make>;
        const value = yield* make;
        // One that cannot be kept is made again: a full disk costs no result.
        yield* cache.put(at, { use: `${use}, a piece of it`, seconds: 0 }, { piece: port }, { piece: value });
        return value;
      }),
  };
  return { keeper, forget: Effect.suspend(() => Effect.forEach(used, cache.drop, { discard: true })) };
};
