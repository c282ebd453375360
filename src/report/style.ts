/** The look of the page: one column of text beside its headings, rules instead of boxes, colour only where it means something. */
export const STYLE = `
:root {
  color-scheme: light dark;
  --paper: #fcfcfa; --ink: #1c1e22; --soft: #5a5f68; --rule: #e2e1dc; --faint: #f1f0ec;
  --accent: #35598c; --bar: #7b96bb; --good: #1d7248; --bad: #ad3128; --mark: #fbe9c4;
  --serif: Charter, "Bitstream Charter", "Sitka Text", "Iowan Old Style", Cambria, Georgia, serif;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", sans-serif;
  --mono: ui-monospace, "Cascadia Code", "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15171a; --ink: #e7e5df; --soft: #a1a6ae; --rule: #30343a; --faint: #1e2125;
    --accent: #93b4e4; --bar: #5f7ca6; --good: #74cb9d; --bad: #f29085; --mark: #4d3f1d;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body {
  margin: 0 auto; max-width: 76rem; padding: clamp(1.5rem, 5vw, 4rem) clamp(1rem, 5vw, 4rem) 6rem;
  background: var(--paper); color: var(--ink); font: 1rem/1.6 var(--sans); font-variant-numeric: tabular-nums;
}
a { color: var(--accent); text-underline-offset: .2em; }
a:focus-visible, summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; }
h1, h2, h3 { font-family: var(--serif); font-weight: 600; line-height: 1.25; text-wrap: balance; }
h1 { font-size: clamp(1.4rem, 3vw, 1.9rem); font-weight: 500; margin: .6rem 0 0; max-width: 50rem; text-wrap: pretty; }
h2 { font-size: 1.4rem; margin: 0; }
h3 { font-size: 1.08rem; margin: 2.6rem 0 .6rem; }
.body > :first-child, .body > div > :first-child { margin-top: 0; }
p { margin: .7rem 0; max-width: 44rem; text-wrap: pretty; }
.soft, figcaption, .note { color: var(--soft); }
.small, figcaption { font-size: .875rem; line-height: 1.5; }
code, pre, .mono { font-family: var(--mono); font-size: .875em; overflow-wrap: anywhere; }
pre { margin: 1rem 0; padding: 1rem 1.2rem; background: var(--faint); overflow-x: auto; line-height: 1.5; font-size: .82rem; white-space: pre-wrap; }
.note { border-left: 2px solid var(--rule); padding-left: 1rem; }
.good { color: var(--good); } .bad { color: var(--bad); }

.over { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; color: var(--soft); font-size: .875rem; margin: 0 0 2.2rem; max-width: none; }
.over strong { color: var(--ink); font-weight: 600; letter-spacing: .01em; }
.result { font: 600 1.05rem/1 var(--sans); margin: 0; display: flex; align-items: center; gap: .55rem; }
.result svg { width: 1.5rem; height: 1.5rem; flex: none; }
.heads { display: grid; grid-template-columns: repeat(auto-fit, minmax(11.5rem, 1fr)); gap: 2rem 2.5rem; margin: 3rem 0 0; padding: 0; list-style: none; }
.heads li { border-top: 1px solid var(--rule); padding-top: .9rem; }
.heads .name { font-size: .875rem; color: var(--soft); line-height: 1.4; }
.heads .value { font: 500 2rem/1.2 var(--serif); margin: .25rem 0; }
.heads .value small { font-size: .95rem; color: var(--soft); }
.heads .rule { font-size: .875rem; }
dl.facts { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .35rem 1.5rem; margin: 2.6rem 0 0; font-size: .9rem; }
dl.facts dt { color: var(--soft); } dl.facts dd { margin: 0; overflow-wrap: anywhere; }

nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; padding: 1rem 0; margin: 3.2rem 0 0; border-top: 1px solid var(--rule); font-size: .9rem; }
nav a { text-decoration: none; } nav a:hover { text-decoration: underline; }
section { border-top: 1px solid var(--rule); padding: 2.6rem 0 3.4rem; }
section > h2 { margin-bottom: 1.2rem; }
@media (min-width: 64rem) {
  section { display: grid; grid-template-columns: 10.5rem minmax(0, 1fr); gap: 3rem; }
}

table { border-collapse: collapse; width: 100%; margin: 1rem 0; font-size: .9rem; }
caption { text-align: left; color: var(--soft); font-size: .875rem; padding-bottom: .5rem; }
th, td { text-align: left; vertical-align: top; padding: .55rem 1.1rem .55rem 0; border-bottom: 1px solid var(--rule); }
th:last-child, td:last-child { padding-right: 0; }
thead th { font-weight: 500; color: var(--soft); font-size: .82rem; vertical-align: bottom; }
tbody th { font-weight: 500; }
td.n, th.n { text-align: right; white-space: nowrap; }
tr.chosen > * { background: var(--faint); } tr.chosen > :first-child { box-shadow: inset 3px 0 var(--accent); padding-left: .8rem; }
.body > div:first-child > .wide:first-child > table, .body > .wide:first-child > table { margin-top: 0; }
.wide { overflow-x: auto; } .nowrap { white-space: nowrap; }
.wide tbody th { min-width: 11rem; }
.meaning { display: block; font-weight: 400; color: var(--soft); font-size: .84rem; line-height: 1.45; max-width: 26rem; }

.sheet { margin: 0 0 2.8rem; }
.sheet > p { margin: 0 0 .7rem; max-width: none; }
.row { display: grid; grid-template-columns: repeat(5, minmax(0, 1fr)); gap: .9rem; }
.row figcaption, .maps figcaption { margin-top: .4rem; }
figure { margin: 0; }
.frame { position: relative; display: block; line-height: 0; background: var(--faint); }
.samples { display: flex; flex-wrap: wrap; gap: 1.2rem; } .samples figure { width: 13rem; }
.samples img { width: 100%; height: auto; display: block; image-rendering: pixelated; } .samples figcaption { font-size: .85rem; }
.frame img, .frame svg { width: 100%; height: auto; display: block; }
.frame img { image-rendering: pixelated; } .frame.fine img { image-rendering: auto; }
.frame svg { position: absolute; inset: 0; height: 100%; overflow: visible; }
.frame path { fill: none; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.frame .halo { stroke: #000; stroke-opacity: .65; stroke-width: 4; } .frame .line { stroke: #fff; stroke-width: 1.6; }
@media (max-width: 44rem) { .row { grid-template-columns: repeat(3, minmax(0, 1fr)); gap: .7rem; } }
.maps { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 17rem)); gap: 1.6rem 2.2rem; margin: 1.4rem 0; }
.small-maps { display: grid; grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr)); gap: 1.1rem; margin: 1rem 0; padding: 0; list-style: none; }
.small-maps figcaption { font-size: .78rem; line-height: 1.35; margin-top: .3rem; overflow-wrap: anywhere; }
.scale { max-width: 17rem; font-size: .8rem; color: var(--soft); margin: .8rem 0; }
.scale img { width: 100%; height: .6rem; display: block; }
.scale .ticks { position: relative; height: 1.3rem; }
.scale .ticks span { position: absolute; transform: translateX(-50%); white-space: nowrap; }
.scale .ticks span:first-child { transform: none; } .scale .ticks span:last-child { transform: translateX(-100%); }

mark { background: var(--mark); color: inherit; padding: .05em .15em; border-radius: .15em; }
.hidden { font: 500 .72em/1.2 var(--mono); border: 1px solid currentColor; border-radius: .25em; padding: .02em .3em; margin: 0 .12em; white-space: nowrap; vertical-align: .08em; }
.space { color: var(--soft); }
.prompt { font-family: var(--serif); font-size: 1.06rem; }
.tokens { display: flex; flex-wrap: wrap; gap: .9rem .45rem; align-items: flex-end; margin: .8rem 0 2rem; padding: 0; list-style: none; }
.tokens li { display: flex; flex-direction: column; align-items: center; min-width: 2.4rem; font-size: .9rem; }
.tokens .column { height: 4.6rem; width: 100%; display: flex; flex-direction: column; justify-content: flex-end; align-items: center; }
.tokens .column i { display: block; width: 1.5rem; flex: none; min-height: 1px; background: var(--bar); }
.tokens .num { font-size: .75rem; color: var(--soft); }
.tokens .piece { padding: .05rem .3rem; border-bottom: 2px solid transparent; }
.tokens .ours .piece { border-bottom-color: var(--accent); background: var(--mark); }
.tokens .ours .column i { background: var(--accent); }

table.layers { width: auto; font-size: .72rem; border-collapse: separate; border-spacing: 2px; margin: 1rem 0 1.6rem; }
table.layers th, table.layers td { border: 0; padding: 0; }
table.layers tbody th { font: 400 .75rem/1.5rem var(--mono); color: var(--soft); padding-right: .8rem; white-space: nowrap; min-width: 0; }
table.layers thead th span { writing-mode: vertical-rl; transform: rotate(180deg); white-space: nowrap; font: 400 .72rem/1.7rem var(--mono); }
table.layers thead th:not(:first-child) { width: 1.9rem; } table.layers td { width: 1.9rem; height: 1.5rem; text-align: center; vertical-align: middle; }
table.layers td.none { background: var(--faint); color: var(--soft); }
table.odd tbody th { width: 9rem; }
.body dl.facts { margin: .4rem 0 1.6rem; } code.nowrap { white-space: nowrap; overflow-wrap: normal; }
ul.where { margin: .5rem 0 0; padding-left: 1.1rem; font-size: .84rem; color: var(--soft); }

table.bars td, table.bars th { border: 0; padding: .22rem .9rem .22rem 0; font-weight: 400; vertical-align: middle; }
table.bars th { white-space: nowrap; width: 1%; } table.bars td.n { width: 1%; }
table.bars .track { width: auto; min-width: 5rem; }
table.bars .track i { display: block; height: .7rem; background: var(--bar); min-width: 1px; }
table.bars .strong .track i { background: var(--accent); }
@media (max-width: 44rem) { table.bars th { white-space: normal; overflow-wrap: anywhere; width: 45%; } }

svg.plot { width: 100%; max-width: 38rem; height: auto; display: block; margin: 1.2rem 0 .4rem; }
svg.plot text { font: 12px var(--sans); fill: var(--soft); } svg.plot .strong { fill: var(--ink); font-weight: 600; }
svg.plot .axis, svg.plot .grid { stroke: var(--rule); } svg.plot .axis { stroke: var(--soft); }
svg.plot .level { stroke: var(--soft); stroke-dasharray: 4 4; }
svg.plot .curve { fill: none; stroke: var(--bar); stroke-width: 1.5; stroke-linejoin: round; }
svg.plot .dot { fill: var(--paper); stroke: var(--bar); stroke-width: 1.8; } svg.plot .pick { fill: var(--accent); stroke: var(--accent); }
svg.plot .ring { fill: none; stroke: var(--accent); stroke-width: 1.4; }
svg.interval { width: 8rem; height: 1.1rem; display: block; overflow: visible; }
svg.interval .base { stroke: var(--rule); } svg.interval .span { stroke: var(--bar); stroke-width: 3; }
svg.interval .at { fill: var(--ink); } svg.interval .bound { stroke: var(--accent); stroke-width: 1.6; }
details { margin: 1rem 0; } summary { cursor: pointer; color: var(--accent); }
@media print {
  body { padding: 0; max-width: none; font-size: 10pt; --paper: #fff; }
  nav { display: none; } section { break-inside: auto; padding: 1.4rem 0; }
  .sheet, figure, tr, .tokens { break-inside: avoid; } h2, h3 { break-after: avoid; }
  img, .track i, .column i, table.layers td { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
`;
