/** One part of a checkpoint in one file, as any other part: its tensors are views of the file's bytes. */
import type { BundlePart } from "../bundle.ts";
import type { Folder } from "../files.ts";
import type { Part } from "../part.ts";
import { bytesOf, type ScannedFile, type Stretch, type WeightsFile } from "../weights_file.ts";
import type { PartLayout } from "./layouts.ts";
import { type View, viewsOf } from "./names.ts";

/** Bytes that follow each other become one stretch. `views` stand in the order of their bytes. */
const stretchesOf = (views: readonly View[]): Stretch[] => {
  const out: { begin: number; end: number }[] = [];
  for (const { entry: { begin, end } } of views) {
    const last = out.at(-1);
    if (last !== undefined && last.end >= begin) last.end = Math.max(last.end, end);
    else out.push({ begin, end });
  }
  return out;
};

/** The part, and the keys of the file that hold it. */
export interface OpenedPart {
  readonly part: Part;
  readonly keys: ReadonlySet<string>;
}

/** @param folder stands for the part's folder; its path is the file's */
export const partOfFile = (
  name: BundlePart,
  folder: Folder,
  file: ScannedFile,
  { prefix, rules, config }: PartLayout,
): OpenedPart => {
  const views = viewsOf(file.header, prefix, rules);
  const keys = new Set(views.map(({ key }) => key));
  // A piece of the U-Net that no rule speaks of changes what it computes: it stays in sight, and the network refuses it.
  if (name === "unet") {
    for (const [key, entry] of file.header.entries) {
      if (key.startsWith(prefix) && !keys.has(key)) {
        keys.add(key);
        views.push({ key, name: key, entry, transposed: false });
      }
    }
    views.sort((a, b) => a.entry.begin - b.entry.begin);
  }
  const stretches = stretchesOf(views);
  let [at, memory] = [0, 0];
  const entries = views.map(({ name: tensor, entry }) => {
    while (entry.begin >= stretches[at].end && entry.end > stretches[at].end) {
      memory += stretches[at].end - stretches[at].begin;
      at++;
    }
    const begin = memory + entry.begin - stretches[at].begin;
    return [tensor, { ...entry, begin, end: begin + entry.end - entry.begin }] as const;
  });
  const header = { file: file.path, entries: new Map(entries), metadata: {}, bytes: 0 };
  const weights: WeightsFile = {
    path: file.path,
    size: file.size,
    modified: file.modified,
    sha256: file.sha256,
    stretches,
    header,
    transposed: new Set(views.filter((view) => view.transposed).map((view) => view.name)),
  };
  return {
    part: {
      name,
      folder,
      file: file.path,
      files: [weights],
      size: bytesOf(weights),
      config,
      header,
      sha256: file.sha256,
      notes: [],
    },
    keys,
  };
};
