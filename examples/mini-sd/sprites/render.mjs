// One-off: draws atlas.png from the icon sets on npm. The recipe reads only the atlas, so this need not be run again.
//   npm i @iconify-json/noto@1.2.9 @iconify-json/fluent-emoji-flat@1.2.6 @iconify-json/fluent-emoji@1.2.7 @resvg/resvg-js && node render.mjs
import { createRequire } from "node:module";
import { readFileSync, writeFileSync } from "node:fs";
const require = createRequire(process.cwd() + "/");
const { Resvg } = require("@resvg/resvg-js");

const { concepts, styles, size } = JSON.parse(readFileSync(new URL("atlas.json", import.meta.url)));
let body = "";
Object.values(styles).forEach((set, row) => {
  const icons = require(`@iconify-json/${set}/icons.json`);
  Object.values(concepts).forEach((slug, column) => {
    const icon = icons.icons[slug] ?? icons.icons[icons.aliases[slug].parent];
    const w = icon.width ?? icons.width ?? 16, h = icon.height ?? icons.height ?? 16;
    // Gradients are referred to by id: without a prefix the icons of one sheet would take each other's.
    const own = icon.body.replace(/\b(id=")([^"]+)"/g, `$1r${row}c${column}-$2"`)
      .replace(/url\(#([^)]+)\)/g, `url(#r${row}c${column}-$1)`)
      .replace(/href="#([^"]+)"/g, `href="#r${row}c${column}-$1"`);
    body += `<svg x="${column * size}" y="${row * size}" width="${size}" height="${size}" viewBox="0 0 ${w} ${h}">${own}</svg>`;
  });
});
const width = size * Object.keys(concepts).length, height = size * Object.keys(styles).length;
const svg = `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="${width}" height="${height}">${body}</svg>`;
writeFileSync(new URL("atlas.png", import.meta.url), new Resvg(svg).render().asPng());
