/**
 * Training the embeddings of a few tokens beside a text encoder's other weights. The table of all tokens' embeddings is the
 * largest weight of an encoder and its gradient mostly zeros, so that what is trained is what is added to a few rows of it.
 * Where a trigger has tokens that nothing else is written with, they are what an encoder knows it by: moved, it is read
 * otherwise, and no other text is.
 */
import { Effect } from "effect";
import { type Graph, matmul, type Value } from "../graph/mod.ts";
import type { HostTensor } from "../runtime/mod.ts";
import { type Tensor, zeros } from "../tensor/tensor.ts";
import type { DistillationGraph } from "./distillation.ts";
import type { PartName } from "./part.ts";
import { openPartTrainer, type Weights } from "./train.ts";
import { type PartSource, readWeights } from "./weights.ts";

/** The input that is trained, [k, D]. */
const ROWS = "token rows";

/**
 * What is added to texts' tokens, [B, L, D], of `count` rows that are trained; undefined of none. It takes an input
 * `which_row` [B, L, k], 1 where a token is the row's: see {@link whichRow}.
 */
export const tokenRows = (
  graph: Graph,
  [batch, length]: readonly [number, number],
  width: number,
  count: number,
): { readonly moved: Value; readonly rows: readonly Value[] } | undefined => {
  if (count === 0) return undefined;
  const which = graph.input("which_row", "float32", [batch, length, count]);
  const rows = graph.input(ROWS, "float32", [count, width]);
  return { moved: matmul(which, rows), rows: [rows] };
};

/** Where in texts the tokens stand whose rows are trained. */
export const whichRow = (
  texts: readonly (readonly number[])[],
  tokens: readonly number[],
): HostTensor => {
  const length = texts[0].length, k = tokens.length;
  const data = new Float32Array(texts.length * length * k);
  texts.forEach((ids, b) =>
    ids.forEach((id, i) => {
      const row = tokens.indexOf(id);
      if (row >= 0) data[(b * length + i) * k + row] = 1;
    })
  );
  return { dims: [texts.length, length, k], data };
};

/** The table with rows [k, D] added to those of the tokens. */
export const withRows = ({ dims, data }: Tensor, tokens: readonly number[], rows: Tensor): Tensor => {
  const out = data.slice(), width = dims[1];
  tokens.forEach((token, r) => {
    for (let j = 0; j < width; j++) out[token * width + j] += rows.data[r * width + j];
  });
  return { dims, data: out };
};

/**
 * Opens a trainer of a text encoder some of whose tokens' rows are trained, which begin as they are.
 * @returns as openPartTrainer; the table of the tokens' embeddings is among the weights that are read
 */
export const openTokenTrainer = Effect.fnUntraced(function* (
  name: string,
  distillation: DistillationGraph,
  source: PartSource,
  part: PartName,
  tokens: readonly number[],
) {
  if (tokens.length === 0) return yield* openPartTrainer(name, distillation, source, part);
  const key = `${part === "text_encoder_2" ? "text_model." : ""}embeddings.token_embedding.weight`;
  const [table] = yield* readWeights(source, part, [key]);
  const none = zeros([tokens.length, table.dims[1]]);
  const trainer = yield* openPartTrainer(name, distillation, source, part, new Map(), { [ROWS]: none });
  const whole = (weights: Weights, rows: Tensor) => new Map([...weights, [key, withRows(table, tokens, rows)]]);
  return {
    ...trainer,
    read: () => Effect.map(trainer.readAll(), ({ weights, others }) => whole(weights, others.get(ROWS) ?? none)),
    start: whole(trainer.start, none),
    own: whole(trainer.own, none),
  };
});
