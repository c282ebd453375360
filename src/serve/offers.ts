/** The pipelines that a server offers by name: the files of its folders, read once. What they name is trusted. */
import { readdir, readFile } from "node:fs/promises";
import { join, parse, resolve } from "node:path";
import { isLong } from "../pipeline/params.ts";
import { parseSource } from "../pipeline/source.ts";
import { isMapping } from "../pipeline/spec.ts";
import type { PipelineInfo } from "./api.ts";

export interface Offer {
  readonly info: PipelineInfo;
  readonly file: string;
  readonly folder: string;
  readonly text: string;
  /** Every text in the folder's files as the path that it may be. */
  readonly trusted: ReadonlySet<string>;
}

const texts = (value: unknown): string[] =>
  typeof value === "string"
    ? [value]
    : typeof value === "object" && value !== null
    ? Object.values(value).flatMap(texts)
    : [];

/** Texts may not tell where the server's folders are: a parameter that is a path shows as the file names it. */
const paramsOf = (params: Record<string, unknown>): PipelineInfo["params"] =>
  JSON.parse(JSON.stringify(Object.fromEntries(
    Object.entries(params).map(([name, value]) => [name, isLong(value) ? value.default ?? null : value]),
  )));

/** By name: the file's, without its ending. `steps`: those that may be used; a pipeline that uses others is not offered. */
export const readOffers = async (
  folders: ReadonlyArray<string>,
  steps: ReadonlySet<string>,
): Promise<ReadonlyMap<string, Offer>> => {
  const offers = new Map<string, Offer>();
  for (const folder of folders.map((path) => resolve(path))) {
    const names = (await readdir(folder)).filter((name) => /\.(ya?ml|json)$/.test(name)).sort();
    const files = await Promise.all(names.map(async (name) => {
      const file = join(folder, name);
      const text = await readFile(file, "utf8");
      const source = parseSource(file, text);
      return { name: parse(name).name, file, text, value: "value" in source ? source.value : undefined };
    }));
    const trusted = new Set(files.flatMap(({ value }) => texts(value)).map((text) => resolve(folder, text)));
    for (const { name, file, text, value } of files) {
      if (!isMapping(value) || value.sau !== 1 || !isMapping(value.steps) || offers.has(name)) continue;
      const used = Object.values(value.steps).map((step) => isMapping(step) ? step.use : undefined);
      if (!used.every((use) => typeof use === "string" && (steps.has(use) || /^\.\.?\/.*\.(ya?ml|json)$/.test(use)))) {
        continue;
      }
      const info = {
        name,
        title: String(value.name ?? name),
        description: typeof value.description === "string" ? value.description : null,
        params: isMapping(value.params) ? paramsOf(value.params) : {},
      };
      offers.set(name, { info, file, folder, text, trusted });
    }
  }
  return offers;
};
