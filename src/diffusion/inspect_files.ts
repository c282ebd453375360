/** Which files a checkpoint has, what each is for, and which of them should not be there. Nothing is opened here. */
import { Effect } from "effect";
import { readdir, realpath, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import type { BundleError } from "./errors.ts";
import { type Folder, isInside, system } from "./files.ts";
import { counted, finding } from "./inspect_finding.ts";
import type { Finding } from "./inspection.ts";
import { isWeights } from "./part.ts";

/** Deeper than any checkpoint, and more files than any has: a folder that goes on beyond is no checkpoint. */
const DEEPEST = 8;
const MOST_FILES = 20_000;
/** Links between folders could multiply them without end. */
const MOST_FOLDERS = 2000;

export interface Listed {
  /** Path in the folder, with `/`. */
  readonly path: string;
  readonly bytes: number;
  /** `link`: a link that leaves the folder or leads nowhere; `special`: no file, such as a device. */
  readonly kind: "file" | "link" | "special";
  /** Where a link leads. */
  readonly to?: string;
}

/** Every file below a folder, in order of their paths. Links are followed only while they stay inside. */
export const listFolder = Effect.fnUntraced(function* (
  folder: Folder,
): Effect.fn.Return<{ readonly files: readonly Listed[]; readonly complete: boolean }, BundleError> {
  const files: Listed[] = [];
  let complete = true, folders = 0;
  const walk = async (path: string, depth: number): Promise<void> => {
    if (depth > DEEPEST || ++folders > MOST_FOLDERS) {
      complete = false;
      return;
    }
    const names = (await readdir(join(folder.path, path))).sort();
    for (const name of names) {
      if (files.length >= MOST_FILES) {
        complete = false;
        return;
      }
      const inner = path === "" ? name : `${path}/${name}`;
      const full = join(folder.path, inner);
      const real = await realpath(full).catch(() => undefined);
      if (real === undefined || !folder.allowed.some((root) => isInside(real, root))) {
        files.push({ path: inner, bytes: 0, kind: "link", to: real ?? "nowhere" });
        continue;
      }
      const info = await stat(real);
      if (info.isDirectory()) await walk(inner, depth + 1);
      else files.push({ path: inner, bytes: Number(info.size), kind: info.isFile() ? "file" : "special" });
    }
  };
  yield* system(folder.path, "cannot be listed", () => walk("", 0));
  return { files, complete };
});

const PICKLE = /\.(ckpt|pt|pth|bin|pkl|pickle|dill|joblib)$/i;
const CODE =
  /\.(py|pyc|pyd|pyw|so|dll|dylib|exe|com|scr|sh|bash|bat|cmd|ps1|vbs|js|mjs|cjs|ts|jar|rb|pl|php|ipynb|wasm|desktop|lnk|command)$/i;
const CONFIG =
  /(^|\/)(model_index|config|scheduler_config|preprocessor_config|generation_config)\.json$|\.safetensors\.index\.json$/;
const TOKENIZER =
  /(^|\/)(tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|vocab\.json|merges\.txt|added_tokens\.json)$/;
const TEXT =
  /(^|\/)(\.gitattributes|\.gitignore|readme[^/]*|licen[cs]e[^/]*)$|\.(md|txt|rst|pdf|png|jpe?g|webp|gif|svg)$/i;

/** What a file is for, by its name. `used` are the weights that are read. */
export const useOf = ({ path, kind }: Listed, used: ReadonlySet<string>): string => {
  if (kind !== "file") return kind;
  if (used.has(path)) return "weights";
  if (PICKLE.test(path)) return "pickle";
  if (CODE.test(path)) return "code";
  if (CONFIG.test(path)) return "config";
  if (TOKENIZER.test(path)) return "tokenizer";
  if (isWeights(path)) return "other weights";
  return TEXT.test(path) ? "text" : "other";
};

/** Uses whose bytes are read, so that they have a hash. */
export const isHashed = (use: string): boolean => ["weights", "config", "tokenizer", "text"].includes(use);

const shown = ({ path, to }: Listed): string => to === undefined ? path : `${path} → ${to}`;

/** What is odd about the files there are. */
export const oddFiles = (files: readonly Listed[], used: ReadonlySet<string>, complete: boolean): Finding[] => {
  const of = (use: string) => files.filter((file) => useOf(file, used) === use);
  const out: Finding[] = [];
  const say = (list: readonly Listed[], make: (where: readonly string[]) => Finding) => {
    if (list.length > 0) out.push(make(list.map(shown)));
  };
  say(of("pickle"), (where) =>
    finding("pickle", "warn", where, {
      what: `${counted(where.length, "file")} of a pickled kind (${extensions(where)}); not opened`,
      why: "A pickle can run any program while it is loaded, and loaders that find no safetensors fall back to it.",
      todo: "Delete it if the same weights are there as safetensors; never load it outside a sandbox.",
    }));
  say(of("code"), (where) =>
    finding("code", "warn", where, {
      what: `${counted(where.length, "file")} of program code beside the weights; not opened`,
      why: "A checkpoint needs no code; with trust_remote_code or a custom pipeline, loaders run it as you.",
      todo: "Read it before anything loads the folder, or delete it.",
    }));
  say(of("link"), (where) =>
    finding("link", "warn", where, {
      what: `${counted(where.length, "link")} that leave the folder or lead nowhere; not followed`,
      why: "What is loaded through it is not what you were handed, and may be a private file of yours.",
      todo: "Delete it, or copy what it points to into the folder if you trust it.",
    }));
  say(of("special"), (where) =>
    finding("special-file", "warn", where, {
      what: `${counted(where.length, "entry", "entries")} that are neither files nor folders; not opened`,
      why: "Reading a pipe or a device can hang a program or act on the machine.",
      todo: "Delete it.",
    }));
  say(of("other weights"), (where) =>
    finding("unused-weights", "info", where, {
      what: `${
        counted(where.length, "weights file")
      } that were not read: another precision or form of the same, or something else`,
      why: "Another loader or a `variant` may take these instead, and they can differ from what was looked at here.",
      todo: "Inspect each by itself (sau inspect FILE), or delete what you do not use.",
    }));
  say(of("other"), (where) =>
    finding("unused-files", "info", where, {
      what: `${counted(where.length, "file")} that no part of a checkpoint uses`,
      why: "They do nothing for the model.",
      todo: "See what they are; delete what you do not need.",
    }));
  if (!complete) {
    out.push(finding("too-many-files", "warn", [], {
      what: `more than ${counted(MOST_FILES, "file")}, or folders deeper than ${DEEPEST}: the rest was not looked at`,
      why: "What was not looked at can hold anything.",
      todo: "Give the folder of the checkpoint alone.",
    }));
  }
  return out;
};

const extensions = (paths: readonly string[]): string =>
  [...new Set(paths.map((path) => `.${basename(path).split(".").at(-1)}`))].join(", ");
