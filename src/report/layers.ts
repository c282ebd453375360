/** The picture of a network's layers: a row a layer, a column what the tensor is there, a colour how large its figure is. */
import { colour, type Rgb } from "./colormap.ts";
import { type Content, type Html, markup } from "./html.ts";
import { colourScale } from "./plots.ts";

export interface Cell {
  readonly layer: string;
  readonly role: string;
  /** From 0 (dark) to 1 (light); undefined leaves the cell empty, with its text. */
  readonly at: number | undefined;
  /** Written into the cell; a few characters. */
  readonly text: string;
  /** Told by the pointer. */
  readonly title: string;
}

/** Perceived lightness of an sRGB colour in 0…1, for the choice between dark and light letters. */
const lightness = ([r, g, b]: Rgb): number => (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255;

const natural = new Intl.Collator("en", { numeric: true });

/** Where in the network a block stands: what comes in first, what goes out last. */
const STAGES = [
  /^(?:embeddings|token_embedding|positional|conv_in|quant_conv|time_|add_|class_|label_|encoder\.conv_in)/,
  /^(?:down_blocks|input_blocks|encoder\.(?:down|layers)|layers|resblocks)/,
  /^(?:mid_block|middle_block|encoder\.mid)/,
  /^encoder\./,
  /^(?:post_quant_conv|decoder\.conv_in|decoder\.mid)/,
  /^(?:up_blocks|output_blocks|decoder\.up)/,
];
const stage = (layer: string): number => {
  const at = STAGES.findIndex((s) => s.test(layer));
  return at < 0 ? STAGES.length : at;
};

/** Order of what stands in a layer, as the signal passes through it; a kind of layer for each list. */
const ROLES: ReadonlyArray<readonly string[]> = [
  ("norm group_norm proj_in norm1 attn1.to_q attn1.to_k attn1.to_v attn1.to_out norm2 attn2.to_q attn2.to_k attn2.to_v " +
    "attn2.to_out norm3 ff.net.0.proj ff.net.2 proj_out to_q to_k to_v to_out").split(" "),
  "norm1 conv1 time_emb_proj norm2 conv2 conv_shortcut".split(" "),
  "in_layers.0 in_layers.2 emb_layers.1 out_layers.0 out_layers.3 skip_connection".split(" "),
  "layer_norm1 self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.out_proj layer_norm2 mlp.fc1 mlp.fc2".split(
    " ",
  ),
];

/** Roles in the order of the list that has most of them, others behind. */
const inOrder = (roles: readonly string[]): string[] => {
  const known = (list: readonly string[]) => roles.filter((role) => list.includes(role)).length;
  const [list] = ROLES.toSorted((a, b) => known(b) - known(a));
  const at = (role: string) => list.includes(role) ? list.indexOf(role) : list.length;
  return roles.toSorted((a, b) => at(a) - at(b) || natural.compare(a, b));
};
const byLayer = (a: string, b: string): number => stage(a) - stage(b) || natural.compare(a, b);

/** `resnets`, `attentions`, `layers`: layers of a family have the same roles, and share a table. */
const familyOf = ({ layer, role }: Cell): string => {
  if (/^(?:lora|alpha|dora|hada|lokr)/.test(role)) return "targets";
  return /\.\d+(?:\.\d+)?$/.test(layer) ? layer.split(".").filter((word) => !/^\d+$/.test(word)).at(-1) ?? "" : "";
};

const cellOf = ({ at, text, title }: Cell): Html => {
  if (at === undefined) return markup`<td class="none" title="${title}">${text}</td>`;
  const rgb = colour(at);
  const ink = lightness(rgb) > 0.5 ? "#111" : "#fff";
  return markup`<td style="background:rgb(${rgb.join(",")});color:${ink}" title="${title}">${text}</td>`;
};

const tableOf = (family: string, own: readonly Cell[]): Html => {
  const roles = family === "" ? [""] : inOrder([...new Set(own.map((c) => c.role))]);
  const rows = family === ""
    ? own.map((c) => [c.layer === c.role ? c.layer : `${c.layer}.${c.role}`, [c]] as const)
    : [...Map.groupBy(own, ({ layer }) => layer)];
  return markup`<div class="wide"><table class="layers"><thead><tr><th scope="col">${
    family === "" ? "other layers" : family
  }</th>${roles.map((role) => markup`<th scope="col"><span>${role}</span></th>`)}</tr></thead><tbody>${
    rows.toSorted(([a], [b]) => byLayer(a, b)).map(([layer, list]) =>
      markup`<tr><th scope="row">${layer}</th>${
        roles.map((role) => {
          const cell = family === "" ? list[0] : list.find((c) => c.role === role);
          return cell === undefined ? markup`<td></td>` : cellOf(cell);
        })
      }</tr>`
    )
  }</tbody></table></div>`;
};

/**
 * Tables of cells, one for each kind of layer; those in which every cell is empty are named alone.
 * @param nothing begins the sentence that names them
 */
export const layerTables = (cells: readonly Cell[], nothing: string): Html => {
  const families = [...Map.groupBy(cells, familyOf)].sort(([a], [b]) =>
    (a === "" ? 1 : 0) - (b === "" ? 1 : 0) || natural.compare(a, b)
  );
  const isEmpty = (own: readonly Cell[]) => own.every((c) => c.at === undefined && c.text === "");
  const empty = families.filter(([, own]) => isEmpty(own)).map(([family]) => family === "" ? "other layers" : family);
  return markup`${families.filter(([, own]) => !isEmpty(own)).map(([family, own]) => tableOf(family, own))}${
    empty.length > 0 && markup`<p class="soft small">${nothing}: ${empty.join(", ")}.</p>`
  }`;
};

/** A position on a logarithmic scale, and its ticks. */
export const logScale = (low: number, high: number, unit: Content, text: (x: number) => string) => {
  const span = Math.log(high / low) || 1;
  return {
    at: (x: number): number => Math.min(1, Math.max(0, Math.log(x / low) / span)),
    legend: colourScale(unit, [[0, text(low)], [0.5, text(Math.sqrt(low * high))], [1, text(high)]]),
  };
};
