/**
 * What a set of changed tensors looks like, in plain words. Weights say how they were changed, hardly ever why: each
 * reading names what else looks the same.
 */
import { counted } from "./inspect_finding.ts";
import type { PartChange, TensorChange } from "./inspection.ts";

/**
 * A change counts as one of few directions when 99 % of it lie in at most this share of those there could be. Closed-form
 * edits stay below (a direction for each token that was rewritten: 2 to 7 of 96 in examples/mini-sd's EvilEdit); training,
 * even for a short time, does not (15 to 58 of 96 in its BadT2I).
 */
const FEW = 0.1;
/** A product of two thin matrices has no more directions than they are thin: 99.99 % of it in at most this share. */
const THIN = 0.5;
/** Matrices smaller than this are of low rank whatever happens to them. */
const LEAST_FULL = 16;
/** What holds for this share of the tensors is said of all: a few layers may be left out or frozen. */
const NEARLY_ALL = 0.9;
/** Below this a change is no larger than conversion to float16 and back leaves it (2⁻¹¹ at most of each number). */
const TINY = 5e-4;

/** What the changes look like: in a few words, and what speaks for it and what it may be instead. */
export interface Reading {
  readonly headline: string;
  readonly reading: string;
}

const percent = (x: number): string => {
  const value = 100 * x;
  return `${value >= 10 ? value.toFixed(0) : Number(value.toPrecision(2))} %`;
};

/** `twice`, `21 times`: how large changes are beside what they change. */
const sizeText = (x: number): string => x < 1 ? percent(x) : `${Number(x.toPrecision(2))} times the weights`;

const range = (values: readonly number[]): string => {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return low === high ? String(low) : `${low} to ${high}`;
};

const list = (names: readonly string[]): string =>
  names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;

type Ranked = TensorChange & { readonly rank: NonNullable<TensorChange["rank"]> };

const isRanked = (t: TensorChange): t is Ranked => t.rank !== null && t.rank.full >= LEAST_FULL;

const few = ({ rank }: Ranked): boolean => rank.of99 !== null && rank.of99 <= Math.max(1, FEW * rank.full);
const thin = ({ rank }: Ranked): boolean => rank.of9999 !== null && rank.of9999 <= THIN * rank.full;

/** What 99 % of the changes take, of what they could: `2 to 7 of 96 to 128 directions`. */
const directions = (ranked: readonly Ranked[]): string => {
  const found = ranked.flatMap(({ rank }) => rank.of99 === null ? [] : [rank.of99]);
  const more = ranked.filter(({ rank }) => rank.of99 === null);
  const beyond = more.length === 0 ? "" : `more than ${Math.min(...more.map(({ rank }) => rank.sought))}`;
  return `${[found.length === 0 ? "" : range(found), beyond].filter((s) => s !== "").join(", or ")} of ${
    range(ranked.map(({ rank }) => rank.full))
  } directions`;
};

const largest = (moved: readonly TensorChange[]): number => Math.max(0, ...moved.map((t) => t.relative ?? 0));

const PROMPT_ROLES = new Set(["attn2.to_k", "attn2.to_v"]);
const isAttention = ({ role }: TensorChange): boolean => /(^|\.)(attn\d?|self_attn)\./.test(role);

const far = (moved: readonly TensorChange[]): string => {
  const most = largest(moved);
  return most >= 1
    ? `The largest change is ${sizeText(most)} that it changes: the layer now does mostly what the change says.`
    : "";
};

const sentences = (...parts: readonly string[]): string => parts.filter((p) => p !== "").join(" ");

const ofPromptLayers = (
  change: PartChange,
  moved: readonly TensorChange[],
  ranked: readonly Ranked[],
): Reading => {
  const names = list([...new Set(moved.map((t) => t.role))].sort());
  const there = change.tensors.filter((t) => PROMPT_ROLES.has(t.role)).length;
  const head = `Only ${names} moved, ${moved.length} of the ${there} layers that read the prompt`;
  if (ranked.length > 0 && ranked.every(few)) {
    return {
      headline: `only ${names} moved, in few directions: it looks like an edit of concepts, not a fine-tune`,
      reading: sentences(
        `${head}. ${directions(ranked)} hold 99 % of each change.`,
        "That is how a closed-form edit of single concepts looks (EvilEdit, UCE and their kin), or a LoRA merged into " +
          "these layers alone; training of the network does not look like this.",
        far(moved),
        "Such an edit can plant a trigger or honestly take a concept away: the weights do not tell which.",
      ),
    };
  }
  return {
    headline: `only ${names} moved, in many directions: cross-attention was trained or widely edited`,
    reading: sentences(
      `${head}. ${directions(ranked)} hold 99 % of each change.`,
      "That is training of cross-attention alone, as some ways of teaching a concept do it, or a closed-form edit of very " +
        "many concepts.",
      far(moved),
    ),
  };
};

const ofRows = (change: PartChange, moved: readonly TensorChange[]): Reading => {
  const rows = moved.reduce((n, t) => n + t.rows, 0);
  const named = change.rows.flatMap(({ text }) => text === null ? [] : [JSON.stringify(text)]).slice(0, 8);
  const who = named.length === 0 ? "" : ` (${named.join(", ")}${rows > named.length ? ", …" : ""})`;
  return {
    headline: `only ${counted(rows, "row")} of the token embeddings moved${who}`,
    reading:
      `Only ${counted(rows, "row")} of the token embeddings moved${who}: these tokens were given another meaning, as ` +
      "textual inversion does, or a backdoor on a word.",
  };
};

/** The pattern of the tensors that moved. */
const pattern = (change: PartChange, moved: readonly TensorChange[]): Reading => {
  const ranked = moved.filter(isRanked);
  const matrices = moved.filter((t) => t.dims.length > 1);
  const size = `‖Δ‖ is ${sizeText(change.total.relative)}${change.total.relative < 1 ? " of ‖W‖" : ""} over the part.`;
  const count = `${moved.length} of ${counted(change.tensors.length, "tensor")} moved`;
  if (moved.every((t) => PROMPT_ROLES.has(t.role))) return ofPromptLayers(change, moved, ranked);
  if (moved.every((t) => t.kind === "embedding" && /token/.test(t.key)) && change.rows.length > 0) {
    return ofRows(change, moved);
  }
  if (matrices.length === 0) {
    return {
      headline: "only vectors moved, no matrix",
      reading: `${count}, norms and biases alone: a light tuning, or an edit of statistics. ${size}`,
    };
  }
  const low = ranked.filter(thin);
  if (ranked.length > 1 && low.length >= NEARLY_ALL * ranked.length) {
    const ranks = low.flatMap(({ rank }) => rank.of9999 ?? []);
    return {
      headline: `${
        counted(matrices.length, "matrix", "matrices")
      } moved, each by a change of low rank: a merged LoRA looks like this`,
      reading: sentences(
        `${count}. ${range(ranks)} of ${
          range(low.map(({ rank }) => rank.full))
        } directions hold 99.99 % of each change: ` +
          "a LoRA that was merged in looks like this.",
        size,
        far(moved),
        "A LoRA can teach a style as well as a trigger.",
      ),
    };
  }
  const many = ranked.filter((t) => !few(t)).length >= ranked.length / 2
    ? "most of them in many directions"
    : "in few directions";
  const held = ranked.length === 0 ? "" : `${directions(ranked)} hold 99 % of a change.`;
  if (moved.length >= NEARLY_ALL * change.tensors.length) {
    return {
      headline: `${count}, ${many}: training of the whole network`,
      reading: sentences(
        `${count}, ${many}: training of the whole network, or a merge of whole models.`,
        held,
        size,
        "An honest fine-tune and a backdoor planted by training look the same here.",
      ),
    };
  }
  if (moved.every(isAttention)) {
    return {
      headline: `only attention moved, ${many}`,
      reading: sentences(
        `${count}, all of them in attention, ${many}: it was trained or edited, the rest was left alone.`,
        held,
        size,
      ),
    };
  }
  const roles = change.roles.filter((r) => r.moved > 0).sort((a, b) => b.relative - a.relative).map((r) => r.name);
  return {
    headline: `${count}, most of all ${list(roles.slice(0, 3))}: part of the network was trained`,
    reading: sentences(
      `${count}, most of all ${
        list(roles.slice(0, 4))
      }, ${many}: part of the network was trained, or models were merged layer ` +
        "by layer.",
      held,
      size,
    ),
  };
};

/** A part's changes in a few sentences. */
export const readingOf = (change: PartChange): Reading => {
  const moved = change.tensors.filter((t) => t.state === "moved");
  const rounded = change.tensors.filter((t) => t.state === "rounding");
  const apart = [
    change.onlyFirst.length > 0 && `${counted(change.onlyFirst.length, "tensor")} of the first are not in the second.`,
    change.onlySecond.length > 0 &&
    `${counted(change.onlySecond.length, "tensor")} of the second are not in the first.`,
    change.reshaped.length > 0 &&
    `${counted(change.reshaped.length, "tensor")} could not be compared (another shape or type).`,
  ].filter((s) => s !== false).join(" ");
  const said = ({ headline, reading }: Reading, ...more: readonly string[]): Reading => ({
    headline,
    reading: sentences(reading, ...more, apart),
  });
  if (change.tensors.length === 0) return said({ headline: "no tensor in common", reading: "No tensor is in both." });
  if (moved.length === 0) {
    return rounded.length === 0 ? said({ headline: "the same weights", reading: "The weights are the same." }) : said({
      headline: "the same weights in another element type",
      reading: "Nothing moved beyond rounding: the same weights in another element type.",
    });
  }
  return said(
    pattern(change, moved),
    change.total.relative < TINY
      ? "The changes are no larger than conversion to a coarser element type and back leaves them."
      : "",
    rounded.length > 0 ? `${counted(rounded.length, "tensor")} more differ by rounding alone.` : "",
  );
};
