/** The page of `sau inspect`: what is in a checkpoint, what is odd about it, what another one moved. */
import type {
  Comparison,
  Description,
  Fact,
  Finding,
  Inspection,
  PartChange,
  PartFacts,
  TensorChange,
} from "../diffusion/inspection.ts";
import { byteText, fileSizeText } from "../tensor/bytes.ts";
import { type Content, type Html, markup } from "./html.ts";
import { type Cell, layerTables, logScale } from "./layers.ts";
import { count, largest, percent, plain } from "./numbers.ts";
import { page, type Section } from "./page.ts";
import { bars } from "./plots.ts";
import { spelled } from "./text.ts";

/** Tensors in the table of a part's changes; inspection.json has all. */
const MOST_TENSORS = 40;
/** Files whose names and hashes are shown. */
const MOST_FILES = 200;
/** Orders of magnitude that the colours of changes span: what moved less than a thousandth of the most is dark. */
const SPAN = 1000;

const number = (n: number): string => n.toLocaleString("en");
const shape = (dims: readonly number[]): string => dims.join("\u202f×\u202f");
const hash = (sha256: string | null): Content =>
  sha256 === null
    ? markup`<span class="soft">not read</span>`
    : markup`<code class="nowrap" title="${sha256}">${sha256.slice(0, 16)}…</code>`;

/** `12 %`, `×21`. */
const relativeText = (x: number | null): string => x === null ? "from 0" : x >= 1 ? `×${plain(x)}` : percent(x);

const isWeight = (t: { readonly kind: string }): boolean => t.kind !== "bias";

const findingRow = (f: Finding): Html =>
  markup`<tr><th scope="row" class="${f.severity === "warn" && "bad"}">${
    f.severity === "warn" ? "warning" : "note"
  }<span class="meaning"><code>${f.code}</code></span></th><td><strong>${f.what}</strong><br>${f.why}<br><span class="soft">${f.todo}</span>${
    f.where.length > 0 &&
    markup`<ul class="where">${f.where.map((place) => markup`<li class="mono">${place}</li>`)}${
      f.count > f.where.length && markup`<li class="soft">and ${number(f.count - f.where.length)} more</li>`
    }</ul>`
  }</td></tr>`;

const findings = (d: Description): Html =>
  d.findings.length === 0
    ? markup`<p>Nothing odd was found in ${d.path}. That is no proof of anything: see what it draws (<code>sau scan</code>).</p>`
    : markup`<table class="odd"><caption>${d.path}</caption><thead hidden><tr><th scope="col">Kind</th><th scope="col">Finding</th></tr></thead><tbody>${
      d.findings.map(findingRow)
    }</tbody></table>`;

const factList = (facts: readonly Fact[]): Content =>
  facts.length > 0 &&
  markup`<dl class="facts">${facts.map(({ name, value }) => markup`<dt>${name}</dt><dd>${value}</dd>`)}</dl>`;

const tally = (of: PartFacts["dtypes"]): string =>
  Object.entries(of).map(([name, { tensors }]) => `${tensors} ${name}`).join(", ");

const parts = (d: Description): Html =>
  markup`<div class="wide"><table><thead><tr><th scope="col">Part</th><th scope="col" class="n">Parameters</th><th scope="col" class="n">Size</th><th scope="col">Element types</th><th scope="col">Tensors</th><th scope="col">SHA-256</th></tr></thead><tbody>${
    d.parts.map((p) =>
      markup`<tr><th scope="row">${p.name}<span class="meaning">${p.class}</span></th><td class="n">${
        number(p.parameters)
      }</td><td class="n">${byteText(p.bytes)}</td><td>${tally(p.dtypes)}</td><td>${tally(p.kinds)}</td><td>${
        hash(p.sha256)
      }</td></tr>`
    )
  }</tbody></table></div><p class="soft small">The hash of a part is over its tensors, however they are spread over files.</p>${
    d.parts.filter((p) => p.facts.length > 0).map((p) => markup`<h3>${p.name}</h3>${factList(p.facts)}`)
  }${
    d.tokenizer !== null &&
    markup`<h3>tokenizer</h3><p>${number(d.tokenizer.tokens)} tokens, ${number(d.tokenizer.merges)} merges, at most ${
      String(d.tokenizer.maxLength)
    } tokens a text, ${
      d.tokenizer.added.length === 0
        ? "no added ones."
        : markup`${count(d.tokenizer.added.length, "added token")}: ${
          d.tokenizer.added.slice(0, 40).map(({ id, content }) =>
            markup`<span class="piece mono">${spelled(content)}</span> = ${String(id)}; `
          )
        }`
    }</p>`
  }`;

/** Every weight by the size of its numbers. */
const sizes = (part: PartFacts): Html => {
  const shown = part.tensors.filter((t) => isWeight(t) && t.rms !== null && t.rms > 0);
  if (shown.length === 0) return markup``;
  const all = shown.map((t) => t.rms ?? 1);
  const scale = logScale(Math.min(...all), largest(all), "root of the mean square of a weight, logarithmic", plain);
  const cells = part.tensors.filter(isWeight).map((t): Cell => ({
    layer: t.layer,
    role: t.role,
    at: t.rms === null || t.rms === 0 ? undefined : scale.at(t.rms),
    text: t.nan + t.infinite > 0 ? "NaN" : t.rms === 0 ? "0" : "",
    title: `${t.key} [${t.dims.join(", ")}] ${t.dtype}: RMS ${t.rms === null ? "not read" : plain(t.rms)}, norm ${
      t.rms === null ? "not read" : plain(t.rms * Math.sqrt(t.parameters))
    }`,
  }));
  return markup`<h3>${part.name}</h3>${scale.legend}${layerTables(cells, "No figures for")}`;
};

const layers = (d: Description): Html => markup`${d.parts.map(sizes)}`;

const files = (d: Description): Html =>
  markup`<div class="wide"><table><caption>${d.path}</caption><thead><tr><th scope="col">File</th><th scope="col">For</th><th scope="col" class="n">Size</th><th scope="col">SHA-256</th></tr></thead><tbody>${
    d.files.slice(0, MOST_FILES).map((f) =>
      markup`<tr><td><code>${f.path}</code></td><td>${f.use}</td><td class="n">${fileSizeText(f.bytes)}</td><td>${
        hash(f.sha256)
      }</td></tr>`
    )
  }</tbody></table></div>${
    d.files.length > MOST_FILES &&
    markup`<p class="soft">${number(d.files.length - MOST_FILES)} more are in inspection.json.</p>`
  }${
    d.files.filter((f) => f.metadata !== undefined).map((f) =>
      markup`<details><summary>Metadata of ${f.path}</summary><dl class="facts">${
        Object.entries(f.metadata ?? {}).map(([key, value]) => markup`<dt>${key}</dt><dd class="mono">${value}</dd>`)
      }</dl></details>`
    )
  }`;

const rankText = ({ rank }: TensorChange): string =>
  rank === null ? "" : rank.of99 === null ? `>${rank.sought}` : String(rank.of99);

/** ‖Δ‖ / ‖W‖ of what moved: of matrices, since vectors near 0 move far with little effect, unless nothing else did. */
const changesOf = (part: PartChange): number[] => {
  const moved = part.tensors.filter((t) => t.state === "moved");
  const matrices = moved.filter((t) => t.dims.length > 1);
  return (matrices.length > 0 ? matrices : moved).map((t) => t.relative ?? 0);
};

/** Every weight by how far it moved; the number is the directions of its change. */
const moves = (part: PartChange): Html => {
  const top = largest(changesOf(part), 1e-6);
  const scale = logScale(top / SPAN, top, "‖Δ‖ / ‖W‖, logarithmic", relativeText);
  const cells = part.tensors.filter(isWeight).map((t): Cell => ({
    layer: t.layer,
    role: t.role,
    at: t.state === "moved" ? scale.at(t.relative ?? Infinity) : undefined,
    text: t.state === "moved" ? rankText(t) : t.state === "rounding" ? "≈" : "",
    title: `${t.key} [${t.dims.join(", ")}]: ${
      t.state === "moved"
        ? `moved by ${relativeText(t.relative)}${
          t.rank === null ? "" : `, ${rankText(t)} of ${t.rank.full} directions hold 99 %`
        }`
        : t.state === "rounding"
        ? "no more than rounding"
        : "the same"
    }`,
  }));
  return markup`${scale.legend}<p class="soft small">The number in a cell: in how many directions 99 % of the change lie (singular
values of Δ), out of as many as the smaller side of the matrix. An empty cell is unchanged, ≈ no more than rounding.</p>${
    layerTables(cells, "Nothing moved in")
  }`;
};

const summaryBars = (title: string, list: PartChange["blocks"], most: number): Content => {
  const shown = list.filter((s) => s.moved > 0).sort((a, b) => b.relative - a.relative).slice(0, most);
  return shown.length > 1 && bars(
    shown.map((s) => ({
      label: markup`${s.name} <span class="soft small">${s.moved} of ${s.tensors}</span>`,
      value: s.relative,
      text: relativeText(s.relative),
    })),
    title,
    ["Block", "Change"],
  );
};

const movedTable = (part: PartChange): Content => {
  const moved = part.tensors.filter((t) => t.state === "moved").sort((a, b) =>
    (b.relative ?? Infinity) - (a.relative ?? Infinity)
  );
  return moved.length > 0 &&
    markup`<details><summary>${
      moved.length > MOST_TENSORS
        ? `The ${MOST_TENSORS} tensors that moved most`
        : `The ${count(moved.length, "tensor")} that moved`
    }</summary><div class="wide"><table><thead><tr><th scope="col">Tensor</th><th scope="col">Shape</th><th scope="col" class="n">‖Δ‖/‖W‖</th><th scope="col" class="n">‖Δ‖</th><th scope="col" class="n">Directions for 99 %</th><th scope="col" class="n">for 99.99 %</th><th scope="col" class="n">of</th></tr></thead><tbody>${
      moved.slice(0, MOST_TENSORS).map((t) =>
        markup`<tr><td><code>${t.key}</code></td><td>${shape(t.dims)}</td><td class="n">${
          relativeText(t.relative)
        }</td><td class="n">${plain(t.norm)}</td><td class="n">${rankText(t)}</td><td class="n">${
          t.rank === null ? "" : t.rank.of9999 === null ? `>${t.rank.sought}` : String(t.rank.of9999)
        }</td><td class="n">${t.rank === null ? "" : String(t.rank.full)}</td></tr>`
      )
    }</tbody></table></div></details>`;
};

const keyList = (what: string, keys: readonly string[]): Content =>
  keys.length > 0 &&
  markup`<details><summary>${what}: ${number(keys.length)}</summary><ul class="where">${
    keys.slice(0, MOST_FILES).map((key) => markup`<li class="mono">${key}</li>`)
  }</ul></details>`;

const rowTable = (part: PartChange): Content =>
  part.rows.length > 0 &&
  markup`<table><caption>Rows of embeddings that moved.</caption><thead><tr><th scope="col">Token</th><th scope="col" class="n">Row</th><th scope="col" class="n">Change beside a usual row</th></tr></thead><tbody>${
    part.rows.map((r) =>
      markup`<tr><td>${
        r.text === null ? "" : markup`<span class="piece">${spelled(r.text)}</span>`
      }</td><td class="n">${String(r.row)}</td><td class="n">${relativeText(r.relative)}</td></tr>`
    )
  }</tbody></table>`;

const change = (part: PartChange): Html => {
  const moved = part.total.moved > 0;
  return markup`<h3>${part.name}</h3><p>${part.reading}</p>${
    moved && [
      summaryBars("By block, the whole of it: ‖Δ‖ / ‖W‖ over all its tensors.", part.blocks, 16),
      summaryBars("By what the tensors are.", part.roles, 12),
      moves(part),
      movedTable(part),
    ]
  }${rowTable(part)}${keyList("Only in the first", part.onlyFirst)}${keyList("Only in the second", part.onlySecond)}${
    keyList("Not compared", part.reshaped)
  }`;
};

const comparison = (c: Comparison): Html =>
  markup`<div>${c.parts.map(change)}${
    c.onlyFirst.length + c.onlySecond.length > 0 &&
    markup`<p class="soft">${c.onlyFirst.length > 0 && `Only the first holds ${c.onlyFirst.join(", ")}. `}${
      c.onlySecond.length > 0 && `Only the second holds ${c.onlySecond.join(", ")}.`
    }</p>`
  }</div>`;

const settings = (c: Comparison): Html | undefined =>
  c.settings.length === 0
    ? undefined
    : markup`<div class="wide"><table><thead><tr><th scope="col">Where</th><th scope="col">First</th><th scope="col">Second</th></tr></thead><tbody>${
      c.settings.map((s) =>
        markup`<tr><td>${s.where}</td><td class="mono">${s.first ?? "none"}</td><td class="mono">${
          s.second ?? "none"
        }</td></tr>`
      )
    }</tbody></table></div>`;

const warnings = (d: Description): number => d.findings.filter((f) => f.severity === "warn").length;

const headFigure = (name: string, value: Content, rule: Content): Html =>
  markup`<li><div class="name">${name}</div><div class="value">${value}</div><div class="rule soft">${rule}</div></li>`;

const oddHead = (d: Description): Html => {
  const n = warnings(d);
  return headFigure(
    "Odd",
    markup`<span class="${n > 0 && "bad"}">${count(n, "warning")}</span>`,
    count(d.findings.length - n, "note"),
  );
};

const head = (i: Inspection): Html => {
  const { comparison: c, other } = i;
  const moved = c?.parts.reduce((n, p) => n + p.total.moved, 0) ?? 0;
  const tensors = c?.parts.reduce((n, p) => n + p.total.tensors, 0) ?? 0;
  const types = [...new Set(i.parts.flatMap((p) => Object.keys(p.dtypes)))].join(", ");
  return markup`<header>
<p class="over"><strong>sau</strong><span>inspect ${i.path}${other !== null && ` ${other.path}`}</span></p>
<h1>${c === null ? i.title : c.headline.split("\n").map((line) => markup`${line}<br>`)}</h1>
<ul class="heads">${
    c === null
      ? headFigure("Parameters", number(i.parameters), `in ${count(i.parts.length, "part")}`)
      : headFigure("Tensors that moved", number(moved), `of ${number(tensors)} that both have`)
  }${
    c === null ? headFigure("Size", byteText(i.bytes), types) : headFigure(
      "Largest change",
      relativeText(largest(c.parts.flatMap(changesOf), 0)),
      "‖Δ‖ / ‖W‖ of one tensor",
    )
  }${oddHead(other ?? i)}</ul>
${
    factList(
      other === null ? i.facts : [{ name: "first", value: `${i.path}: ${i.title}` }, {
        name: "second",
        value: `${other.path}: ${other.title}`,
      }],
    )
  }
</header>`;
};

/** The whole page. It loads nothing and runs nothing; every text in it is escaped. */
export const renderInspection = (inspection: Inspection): string => {
  const { comparison: c, other } = inspection;
  const all = other === null ? [inspection] : [other, inspection];
  const sections: readonly Section[] = [
    { id: "moved", title: "What moved", body: () => c === null ? undefined : comparison(c) },
    { id: "settings", title: "Settings that differ", body: () => c === null ? undefined : settings(c) },
    { id: "odd", title: "What is odd", body: () => markup`<div>${all.map(findings)}</div>` },
    { id: "parts", title: "What is in it", body: () => markup`<div>${all.map(parts)}</div>` },
    { id: "layers", title: "Layers", body: () => c === null ? markup`<div>${layers(inspection)}</div>` : undefined },
    { id: "files", title: "Files", body: () => markup`<div>${all.map(files)}</div>` },
  ];
  return page(
    `${other === null ? inspection.path : `${inspection.path} → ${other.path}`} · sau inspect`,
    head(inspection),
    sections,
  );
};
