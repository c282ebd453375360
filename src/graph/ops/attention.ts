/** Attention as one operation: its probabilities are never held whole. */
import { GraphError, type Op, showType, type Value } from "../graph.ts";
import { mul, sub } from "./elementwise.ts";
import { matmul } from "./linear.ts";
import { reduceSum, softmax } from "./reduce.ts";
import { reshape, transpose } from "./shape.ts";

const headsOf = (attributes: Parameters<Op["infer"]>[1]): number => {
  const { num_heads: heads } = attributes;
  return "int" in heads ? heads.int : 0;
};

/** [B, L, heads · d] to [B, heads, L, d]. */
const perHead = (x: Value, heads: number): Value =>
  transpose(reshape(x, [x.dims[0], x.dims[1], heads, x.dims[2] / heads]), [0, 2, 1, 3]);

const joined = (x: Value): Value => {
  const [batch, heads, length, depth] = x.dims;
  return reshape(transpose(x, [0, 2, 1, 3]), [batch, length, heads * depth]);
};

const turned = (x: Value): Value => transpose(x, [0, 1, 3, 2]);

const attentionOp: Op = {
  type: "MultiHeadAttention",
  half: "computes",
  domain: "com.microsoft",
  infer: ([q, k, v], attributes) => {
    const [batch, , width] = q.dims;
    const fit = q.dims.length === 3 && k.dims.join() === v.dims.join() && k.dims[0] === batch && k.dims[2] === width;
    if (!fit || width % headsOf(attributes) !== 0) {
      throw new GraphError(`MultiHeadAttention: ${[q, k, v].map(showType).join(", ")}, ${headsOf(attributes)} heads`);
    }
    return q;
  },
  gradient: (dy, { inputs, attributes }, i) => {
    const heads = headsOf(attributes);
    const [q, k, v] = inputs.map((x) => perHead(x, heads));
    const scale = 1 / Math.sqrt(q.dims[3]);
    const probabilities = softmax(matmul(mul(q, scale), turned(k)));
    const dOut = perHead(dy, heads);
    if (i === 2) return joined(matmul(turned(probabilities), dOut));
    const dProbabilities = matmul(dOut, turned(v));
    const dScores = mul(
      probabilities,
      sub(dProbabilities, reduceSum(mul(dProbabilities, probabilities), [-1])),
    );
    return joined(i === 0 ? matmul(mul(dScores, scale), k) : matmul(turned(dScores), mul(q, scale)));
  },
};

/**
 * Multi-head scaled dot-product attention (Vaswani et al. 2017, eq. 1) as ONNX Runtime's own operation, which goes over the
 * keys in blocks (Dao et al. 2022) where its device can: memory for the result alone, and not for every query times every
 * key. query [B, Q, C], key and value [B, L, C], C in `heads` equal parts; the result is [B, Q, C].
 */
export const fusedAttention = (query: Value, key: Value, value: Value, heads: number): Value =>
  query.graph.apply(attentionOp, [query, key, value], { num_heads: { int: heads } });
