/** What is odd about tensors by themselves and among their like, and about what trainers noted beside them. */
import { median, robustScores } from "../metrics/robust.ts";
import { counted, finding } from "./inspect_finding.ts";
import type { FileFacts, Finding, PartFacts, TensorFacts } from "./inspection.ts";

/** Fewer than this many siblings say nothing about what is usual among them. */
const SIBLINGS = 6;
/** A layer stands out beyond this many robust deviations of ln(RMS): one in 10⁹ by chance, were they normal… */
const FAR = 6;
/** …and by at least this factor: siblings that agree to a per cent would else make outliers of two per cent. */
const FACTOR = 4;
/** Equal tensors smaller than this come about by themselves: biases of zeros, norms of ones. */
const LEAST_DUPLICATE = 1024;

const where = (part: PartFacts, tensors: readonly TensorFacts[], more?: (t: TensorFacts) => string): string[] =>
  tensors.map((t) => `${part.name}: ${t.key}${more === undefined ? "" : ` (${more(t)})`}`);

const isConstant = (t: TensorFacts): boolean => t.min !== null && t.min === t.max && t.parameters > 1;

/** `×12`, `1/12`. */
const factorText = (ratio: number): string =>
  ratio >= 1 ? `×${Number(ratio.toPrecision(2))}` : `1/${Number((1 / ratio).toPrecision(2))}`;

interface Outlier {
  readonly tensor: TensorFacts;
  /** RMS over the median of its siblings. */
  readonly ratio: number;
}

/** Tensors whose RMS is far from that of their group, by the robust z-score of ln(RMS) and by a plain factor. */
const outliersOf = (group: readonly TensorFacts[]): Outlier[] => {
  const sized = group.filter((t) => t.rms !== null && t.rms > 0);
  if (sized.length < SIBLINGS) return [];
  const logs = sized.map((t) => Math.log(t.rms ?? 1));
  const scores = robustScores(logs), centre = median(logs);
  return sized.flatMap((tensor, i) => {
    const ratio = Math.exp(logs[i] - centre);
    return Math.abs(scores[i]) > FAR && Math.max(ratio, 1 / ratio) > FACTOR ? [{ tensor, ratio }] : [];
  });
};

const PROJECTION = /(?:^|\.)(?:to_[qkv]|to_out|[qkv]_proj|out_proj)$/;

/** Layers far from their siblings: weights of one role, and all projections of attention together. */
export const outliers = (part: PartFacts): readonly Outlier[] => {
  const weights = part.tensors.filter((t) => t.kind === "conv" || t.kind === "linear");
  const groups = [
    ...Map.groupBy(weights, (t) => `${t.role} ${t.dims.length}`).values(),
    weights.filter((t) => PROJECTION.test(t.role)),
  ];
  const found = new Map<string, Outlier>();
  for (const one of groups.flatMap(outliersOf)) if (!found.has(one.tensor.key)) found.set(one.tensor.key, one);
  return [...found.values()].sort((a, b) => Math.abs(Math.log(b.ratio)) - Math.abs(Math.log(a.ratio)));
};

const ofValues = (part: PartFacts): Finding[] => {
  const out: Finding[] = [];
  const say = (list: readonly TensorFacts[], make: (list: readonly TensorFacts[]) => Finding) => {
    if (list.length > 0) out.push(make(list));
  };
  say(
    part.tensors.filter((t) => t.nan + t.infinite > 0),
    (list) =>
      finding("not-finite", "warn", where(part, list, (t) => `${t.nan} NaN, ${t.infinite} infinite`), {
        what: `${counted(list.length, "tensor")} of ${part.name} with values that are not finite numbers`,
        why: "One of them can turn every picture black or into noise; the file is damaged, or training diverged.",
        todo: "Fetch the file again and compare its SHA-256 with the publisher's.",
      }),
  );
  const constant = part.tensors.filter(isConstant);
  const matrices = constant.filter((t) => t.dims.length > 1 && t.kind !== "lora");
  say(matrices.filter((t) => t.max === 0), (list) =>
    finding("all-zero", "warn", where(part, list), {
      what: `${counted(list.length, "weight")} of ${part.name} that are zero throughout`,
      why: "A layer of zeros passes nothing on: it was cut out, or never trained.",
      todo: "Compare with the model that it is said to come from: sau inspect BASE THIS.",
    }));
  say(
    matrices.filter((t) => t.max !== 0),
    (list) =>
      finding("constant", "warn", where(part, list, (t) => `all ${t.max}`), {
        what: `${counted(list.length, "weight")} of ${part.name} with one and the same value throughout`,
        why: "Training leaves no such weights: they were overwritten.",
        todo: "Compare with the model that it is said to come from: sau inspect BASE THIS.",
      }),
  );
  const vectors = constant.filter((t) => t.dims.length === 1);
  say(
    vectors.filter((t) => !(t.kind === "norm" && t.max === 1) && !(t.kind === "bias" && t.max === 0)),
    (list) =>
      finding("constant-vector", "info", where(part, list, (t) => `all ${t.max}`), {
        what: `${counted(list.length, "vector")} of ${part.name} with one and the same value throughout`,
        why: "Rarely left by training; often harmless.",
        todo: "Compare with the model that it is said to come from.",
      }),
  );
  say(
    vectors.filter((t) => (t.kind === "norm" && t.max === 1) || (t.kind === "bias" && t.max === 0)),
    (list) =>
      finding("untrained-vectors", "info", where(part, list), {
        what: `${
          counted(list.length, "vector")
        } of ${part.name} as a new network has them (norms of ones, biases of zeros)`,
        why: "These were never trained, or are not used by this model.",
        todo: "Nothing, unless the model that it is said to come from has others there.",
      }),
  );
  say(
    part.tensors.filter((t) => t.rms === null && t.nan + t.infinite === 0 && t.parameters > 0),
    (list) =>
      finding("type-not-read", "info", where(part, list, (t) => t.dtype), {
        what: `${counted(list.length, "tensor")} of ${part.name} in element types that are not read here`,
        why: "Their values were hashed but not looked at.",
        todo: "Convert them to float16 or float32 to have them looked at.",
      }),
  );
  const apart = outliers(part);
  if (apart.length > 0) {
    out.push(
      finding(
        "norm-outlier",
        "warn",
        apart.map(({ tensor, ratio }) =>
          `${part.name}: ${tensor.key} (RMS ${factorText(ratio)} of its siblings' median)`
        ),
        {
          what: `${counted(apart.length, "layer")} of ${part.name} much larger or smaller than ${
            apart.length === 1 ? "its" : "their"
          } siblings`,
          why: "Edits that write a new meaning into a layer often leave it far larger; damaged layers are far off too.",
          todo: "Compare with the model that it is said to come from, and try what the model draws: sau scan.",
        },
      ),
    );
  }
  return out;
};

const duplicates = (parts: readonly PartFacts[]): Finding[] => {
  const all = parts.flatMap((part) =>
    part.tensors.filter((t) => t.parameters >= LEAST_DUPLICATE && !isConstant(t)).map((t) => ({ part, t }))
  );
  const twice = [...Map.groupBy(all, ({ t }) => `${t.sha256} ${t.dtype} ${t.parameters}`).values()].filter((g) =>
    g.length > 1
  );
  if (twice.length === 0) return [];
  return [finding(
    "duplicate",
    "info",
    twice.map((group) => group.map(({ part, t }) => `${part.name}: ${t.key}`).slice(0, 4).join(" = ")),
    {
      what: `${counted(twice.length, "group")} of tensors with the same bytes`,
      why: "Networks share some weights on purpose; else a layer was copied over another.",
      todo: "See whether the architecture shares these; if not, compare with the model that it is said to come from.",
    },
  )];
};

/** Metadata keys in which trainers note the SHA-256 of the tensors' bytes. */
const NOTED_HASHES = ["sshs_model_hash", "modelspec.hash_sha256"];

/** Findings on `__metadata__`: notes of trainers, and whether the hash that they noted is still true. */
export const oddMetadata = (files: readonly FileFacts[], dataSha256: ReadonlyMap<string, string>): Finding[] => {
  const out: Finding[] = [];
  for (const { path, metadata } of files) {
    const keys = Object.keys(metadata ?? {}).filter((key) => key !== "format");
    if (metadata === undefined || keys.length === 0) continue;
    out.push(finding("metadata", "info", keys.map((key) => `${path}: ${key}`), {
      what: `${counted(keys.length, "note")} in the metadata of ${path}`,
      why: "Whoever made the file wrote them: they can tell what it was trained on, and can say anything.",
      todo: "Read them; do not rely on them.",
    }));
    for (const key of NOTED_HASHES) {
      const noted = metadata[key]?.replace(/^0x/, "").toLowerCase();
      const real = dataSha256.get(path);
      if (noted === undefined || real === undefined || !/^[0-9a-f]{64}$/.test(noted) || noted === real) continue;
      out.push(finding("hash-mismatch", "warn", [`${path}: ${key}`], {
        what: `the metadata notes ${noted.slice(0, 16)}… as the hash of the tensors, which is ${real.slice(0, 16)}…`,
        why: "The tensors were changed after the trainer wrote its note, or the note was copied from another file.",
        todo: "Fetch the file from its first publisher and compare.",
      }));
    }
  }
  return out;
};

/** Everything odd about the tensors of all parts. */
export const oddTensors = (
  parts: readonly PartFacts[],
): Finding[] => [...parts.flatMap(ofValues), ...duplicates(parts)];
