/** Which parts a checkpoint has, and from which files each is read: by folders, or in a lone file by the keys. */
import { Effect, Schema } from "effect";
import { basename, dirname, join } from "node:path";
import { BundleError } from "./errors.ts";
import { type Folder, readJson, subFolder } from "./files.ts";
import { openExported } from "./inspect_export.ts";
import type { Listed } from "./inspect_files.ts";
import { counted, finding } from "./inspect_finding.ts";
import { networkOf } from "./inspect_fit.ts";
import { LONE_PREFIXES } from "./inspect_names.ts";
import { openWeights, type WeightsFile } from "./inspect_weights.ts";
import type { Finding } from "./inspection.ts";
import { GRAPH } from "./onnx/open.ts";
import { classesOf } from "./part.ts";

export type Json = Readonly<Record<string, unknown>>;

/** A part before its weights are read. */
export interface Found {
  readonly name: string;
  /** Path of its folder in the checkpoint, "" for the checkpoint itself. */
  readonly folder: string;
  readonly class: string | undefined;
  readonly config: Json | undefined;
  readonly files: readonly WeightsFile[];
  /** Of those files, the tensors that are this part's; all of them where it says nothing. */
  readonly owns?: (key: string) => boolean;
}

const Config = Schema.Record(Schema.String, Schema.Unknown);

/** Configs are flat; what is nested beyond this would exhaust the stack of whoever walks through it. */
const DEEPEST = 64;

/** Whether a JSON value is nested deeper than `levels`. */
export const isDeep = (value: unknown, levels = DEEPEST): boolean =>
  typeof value === "object" && value !== null &&
  (levels === 0 || Object.values(value).some((inner) => isDeep(inner, levels - 1)));

/** A JSON file in a part's folder; a finding where it cannot be read. */
export const jsonIn = Effect.fnUntraced(function* (folder: Folder, name: string, path: string, findings: Finding[]) {
  return yield* readJson(folder, name, Config).pipe(
    Effect.filterOrFail(
      (json) => !isDeep(json),
      () => new BundleError({ file: path, problem: `is nested deeper than ${DEEPEST} levels` }),
    ),
    Effect.catch((error) => {
      findings.push(finding("config-unreadable", "warn", [path], {
        what: error.message,
        why: "Without it nobody can tell what the weights are meant to be.",
        todo: "Fetch the file again from where the model came from.",
      }));
      return Effect.succeed(undefined);
    }),
  );
});

/** Weights that loaders look for first, in their order. */
const PREFERRED = [
  "diffusion_pytorch_model.safetensors",
  "model.safetensors",
  "diffusion_pytorch_model.fp16.safetensors",
  "model.fp16.safetensors",
];

const Shards = Schema.Struct({ weight_map: Schema.Record(Schema.String, Schema.String) });
/** More shards than any part of such a model has. */
const MOST_SHARDS = 64;

/** Names of the weights files of one folder that a loader would take: one, or the shards that an index lists. */
const chooseWeights = Effect.fnUntraced(function* (
  folder: Folder,
  prefix: string,
  names: readonly string[],
  findings: Finding[],
) {
  const preferred = PREFERRED.find((name) => names.includes(name));
  if (preferred !== undefined) return [preferred];
  const index = names.find((name) => name.endsWith(".safetensors.index.json"));
  if (index !== undefined) {
    const read = yield* Effect.result(readJson(folder, index, Shards, 16 << 20));
    const listed = read._tag === "Success" ? [...new Set(Object.values(read.success?.weight_map ?? {}))] : [];
    const there = listed.filter((name) => names.includes(name)).slice(0, MOST_SHARDS);
    if (there.length < listed.length || read._tag === "Failure") {
      findings.push(finding("shards", "warn", [`${prefix}${index}`], {
        what: read._tag === "Failure"
          ? read.failure.message
          : `${counted(listed.length - there.length, "file")} that the index lists are not in its folder`,
        why: "The weights are not complete, or the index leads elsewhere.",
        todo: "Fetch the folder again.",
      }));
    }
    if (there.length > 0) return there;
  }
  return names.filter((name) => name.endsWith(".safetensors")).slice(0, 1);
});

/** Opens weights; a finding where a file is no sound safetensors file. */
const openAll = Effect.fnUntraced(
  function* (folder: Folder, prefix: string, names: readonly string[], findings: Finding[]) {
    const open: WeightsFile[] = [];
    for (const name of names) {
      const opened = yield* Effect.result(openWeights(join(folder.path, name), `${prefix}${name}`));
      if (opened._tag === "Success") open.push(opened.success);
      else {
        findings.push(finding("weights-unreadable", "warn", [`${prefix}${name}`], {
          what: opened.failure.message,
          why: "Loaders that are less strict may read something else from it than you think.",
          todo: "Fetch the file again; if it stays like this, do not use it.",
        }));
      }
    }
    return open;
  },
);

/** Folder names that parts have by their class, for folders that are called otherwise. */
const NAMES: Readonly<Record<string, string>> = {
  UNet2DConditionModel: "unet",
  CLIPTextModel: "text_encoder",
  CLIPTextModelWithProjection: "text_encoder_2",
  AutoencoderKL: "vae",
  CLIPModel: "clip",
  ControlNetModel: "controlnet",
  StableDiffusionSafetyChecker: "safety_checker",
  CLIPVisionModelWithProjection: "image_encoder",
};

/** An export of a VAE is two graphs, its halves: one part all the same. */
const oneVae = (found: readonly Found[]): readonly Found[] => {
  const [decoder, encoder] = ["vae_decoder", "vae_encoder"].map((name) => found.find((part) => part.name === name));
  if (decoder === undefined || encoder === undefined) return found;
  const whole = { ...decoder, name: "vae", files: [...decoder.files, ...encoder.files] };
  return found.flatMap((part) => part === decoder ? [whole] : part === encoder ? [] : [part]);
};

/** The parts in a folder: those in its sub-folders, and what lies in it itself. */
export const partsIn = Effect.fnUntraced(function* (
  root: Folder,
  listed: readonly Listed[],
  isModel: boolean,
  findings: Finding[],
): Effect.fn.Return<readonly Found[], BundleError> {
  const files = listed.filter((file) => file.kind === "file");
  const byFolder = Map.groupBy(files, ({ path }) => dirname(path) === "." ? "" : dirname(path));
  const found: Found[] = [];
  for (const [path, own] of byFolder) {
    // A model's parts lie one folder down; weights beside model_index.json are whole checkpoints, and no part of it.
    if (path.includes("/") || (isModel && path === "")) continue;
    const names = own.map((file) => basename(file.path));
    const folder = path === "" ? root : yield* subFolder(root, path);
    if (folder === undefined) continue;
    const prefix = path === "" ? "" : `${path}/`;
    const config = names.includes("config.json")
      ? yield* jsonIn(folder, "config.json", `${prefix}config.json`, findings)
      : undefined;
    const chosen = yield* chooseWeights(folder, prefix, names, findings);
    const isGraph = chosen.length === 0 && names.includes(GRAPH);
    if (chosen.length === 0 && config === undefined && !isGraph) continue;
    const named = config === undefined ? undefined : classesOf(config)[0];
    const network = isGraph ? networkOf({ class: named, config }) : undefined;
    const weights = isGraph
      ? yield* openExported(folder, prefix, typeof network === "string" ? undefined : network, findings)
      : yield* openAll(folder, prefix, chosen, findings);
    const isPart = config !== undefined || path !== "";
    if (!isPart) {
      for (const file of weights) found.push(...partsOfFile(file));
      continue;
    }
    const name = path !== "" && isModel ? path : NAMES[named ?? ""] ?? (path === "" ? basename(root.path) : path);
    found.push({ name, folder: path, class: named, config, files: weights });
  }
  return oneVae(found);
});

/** What a file looks like by the keys of its tensors, in a part's name and in words. */
const guesses: ReadonlyArray<{
  readonly name: string;
  readonly class: string;
  readonly has: (keys: ReadonlySet<string>, list: readonly string[]) => boolean;
}> = [
  {
    name: "lora",
    class: "LoRA or a kin of it",
    has: (_, list) => list.some((key) => /[._](lora[_.](A|B|up|down)|hada_w1_a|lokr_w1)\b/.test(key)),
  },
  {
    name: "delta",
    class: "changed tensors that sau wrote",
    has: (_, list) => list.length > 0 && list.every((key) => /^(unet|text_encoder|vae)\./.test(key)),
  },
  {
    name: "controlnet",
    class: "ControlNet",
    has: (_, list) =>
      list.some((key) => /^(control_model\.|controlnet_cond_embedding\.|controlnet_down_blocks\.)/.test(key)),
  },
  {
    name: "unet",
    class: "U-Net, as diffusers names its tensors",
    has: (keys, list) => keys.has("conv_in.weight") && list.some((key) => key.startsWith("down_blocks.")),
  },
  {
    name: "vae",
    class: "autoencoder, as diffusers names its tensors",
    has: (keys) => keys.has("decoder.conv_in.weight") || keys.has("encoder.conv_in.weight"),
  },
  {
    name: "text_encoder",
    class: "CLIP text encoder, as transformers names its tensors",
    has: (keys, list) =>
      !list.some((key) => key.startsWith("vision_model.")) &&
      (keys.has("text_model.embeddings.token_embedding.weight") || keys.has("embeddings.token_embedding.weight")),
  },
  {
    name: "clip",
    class: "CLIP, text and vision",
    has: (_, list) => list.some((key) => key.startsWith("vision_model.")),
  },
  {
    name: "embedding",
    class: "textual inversion: rows to be added to the token embeddings",
    has: (keys, list) =>
      keys.has("emb_params") || (list.length <= 2 && list.some((key) => /^(<.*>|clip_[gl])$/.test(key))),
  },
];

/** The parts of a lone file. A checkpoint in one file holds several, under prefixes. */
export const partsOfFile = (file: WeightsFile): readonly Found[] => {
  const list = [...file.header.entries.keys()];
  const used = LONE_PREFIXES.filter(([prefix]) => list.some((key) => key.startsWith(prefix)));
  if (used.length > 0) {
    const rest = (key: string) => !used.some(([prefix]) => key.startsWith(prefix));
    const parts: Found[] = used.map(([prefix, name]) => ({
      name,
      folder: "",
      class: undefined,
      config: undefined,
      files: [file],
      owns: (key) => key.startsWith(prefix),
    }));
    return list.some(rest)
      ? [...parts, { name: "others", folder: "", class: undefined, config: undefined, files: [file], owns: rest }]
      : parts;
  }
  const keys = new Set(list);
  const guess = guesses.find(({ has }) => has(keys, list));
  return [{
    name: guess?.name ?? "tensors",
    folder: "",
    class: guess?.class,
    config: undefined,
    files: [file],
  }];
};
