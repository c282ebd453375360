/**
 * The pictures of docs/how-it-works.md, from a real run of pipelines/sau.yaml; made anew with
 *     npx -y deno@2.9.6 run -A docs/pictures.ts
 */
import { encode } from "fast-png";
import { mkdir, writeFile } from "node:fs/promises";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { Effect } from "effect";
import { builtinSteps, loadFile, run, Runtime, type Tensor } from "sau";
import { layerEnvironment } from "../src/pipeline/environment.ts";
import { colour } from "../src/report/colormap.ts";
import { valuesOf } from "../src/report/values.ts";

const folder = fileURLToPath(new URL("pictures/", import.meta.url));
const pipelineFile = fileURLToPath(new URL("../pipelines/sau.yaml", import.meta.url));

/** Pixels of every picture's side. */
const SIDE = 128;
const GAP = 8;

/** Colour of the point (x, y), both in [0, 1). */
type Image = (x: number, y: number) => readonly [number, number, number];

const byte = (x: number) => Math.round(255 * Math.min(1, Math.max(0, x)));

const photo = ({ dims: [, h, w], data }: Tensor): Image => (x, y) => {
  const at = Math.floor(y * h) * w + Math.floor(x * w);
  return [byte(data[at]), byte(data[h * w + at]), byte(data[2 * h * w + at])];
};

const heat = ({ dims: [h, w], data }: Tensor, low: number, high: number): Image => (x, y) =>
  colour((data[Math.floor(y * h) * w + Math.floor(x * w)] - low) / (high - low));

/** Rows of pictures side by side as a PNG. */
const sheet = (rows: ReadonlyArray<ReadonlyArray<Image>>): Uint8Array => {
  const step = SIDE + GAP;
  const [width, height] = [rows[0].length * step - GAP, rows.length * step - GAP];
  const data = new Uint8Array(3 * width * height).fill(255);
  rows.forEach((row, r) =>
    row.forEach((image, c) => {
      for (let y = 0; y < SIDE; y++) {
        for (let x = 0; x < SIDE; x++) {
          data.set(image(x / SIDE, y / SIDE), 3 * ((r * step + y) * width + c * step + x));
        }
      }
    })
  );
  return encode({ width, height, data, channels: 3, depth: 8 });
};

const only = <A>(values: ReadonlyArray<{ readonly value: A }>): A => {
  if (values.length === 0) throw new Error("the run lacks a value that a picture shows");
  return values[values.length - 1].value;
};

const result = await Effect.runPromise(Effect.scoped(Effect.gen(function* () {
  const pipeline = yield* loadFile(pipelineFile, { steps: builtinSteps });
  const environment = yield* layerEnvironment(Runtime.layer("auto"), { kind: "auto", report: () => null });
  return yield* run(pipeline, { environment });
})));

const field = only(valuesOf(result, "field"));
const mask = only(valuesOf(result, "mask"));
const { sheets = [] } = only(valuesOf(result, "verdict"));
const top = field.pooled.data.reduce((a, b) => Math.max(a, b), 0);
const low = field.pooled.data.reduce((a, b) => Math.min(a, b), 0);
const own = (i: number): Tensor => {
  const [, h, w] = field.prompts.dims;
  return { dims: [h, w], data: field.prompts.data.slice(i * h * w, (i + 1) * h * w) };
};

await mkdir(folder, { recursive: true });
const files: Record<string, Uint8Array> = {
  "readings.png": sheet(
    sheets.slice(0, 3).map(({ pictures: p }) => [photo(p.cleanBefore), photo(p.triggeredBefore), photo(p.twinBefore)]),
  ),
  "where.png": sheet([[
    heat(own(0), low, top),
    heat(own(1), low, top),
    heat(field.pooled, low, top),
    heat(mask.pooled, 0, 1),
  ]]),
  "verdict.png": sheet(
    sheets.slice(0, 3).map(({ pictures: p }) => [
      photo(p.cleanBefore),
      photo(p.triggeredBefore),
      photo(p.triggeredAfter),
      photo(p.cleanAfter),
    ]),
  ),
};
for (const [name, bytes] of Object.entries(files)) {
  await writeFile(`${folder}${name}`, bytes);
  console.log(`${name}: ${bytes.length} bytes`);
}
const { shape, strength, coverage } = field.shape;
console.log(`field: ${low.toFixed(2)} to ${top.toFixed(2)}; ${shape}, strength ${strength.toFixed(1)}, ${coverage}`);
// The runtime's threads would keep the process alive.
process.exit(0);
