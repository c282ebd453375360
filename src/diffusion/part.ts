/** One network of a model folder: its config.json and its weights file, checked but left on disk. */
import { Effect, Schema } from "effect";
import { readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { dataStart, type Header, parseHeader, SafetensorsError } from "../tensor/safetensors.ts";
import { BundleError } from "./errors.ts";
import { fileIn, type Folder, readFully, readJson, system, withFile } from "./files.ts";
import { scanWeights } from "./scan.ts";

/** The networks that are read: those of a Stable Diffusion folder, and the CLIP that scores pictures. */
export type PartName = "unet" | "text_encoder" | "text_encoder_2" | "vae" | "clip";

export interface Part {
  readonly name: PartName;
  readonly folder: Folder;
  /** Path of the weights file. */
  readonly file: string;
  /** config.json as it stands. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly header: Header;
  /** Of the weights file, when it was opened. */
  readonly size: number;
  readonly modified: number;
  readonly sha256: string;
}

/** Class that config.json must name: diffusers writes `_class_name`, transformers `architectures`. */
const classes: Readonly<Record<PartName, readonly string[]>> = {
  unet: ["UNet2DConditionModel"],
  text_encoder: ["CLIPTextModel"],
  text_encoder_2: ["CLIPTextModelWithProjection"],
  vae: ["AutoencoderKL"],
  clip: ["CLIPModel"],
};

/** Names under which diffusers and transformers look for weights, the better one first. */
const weightNames: Readonly<Record<PartName, readonly string[]>> = {
  unet: ["diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"],
  text_encoder: ["model.safetensors", "model.fp16.safetensors"],
  text_encoder_2: ["model.safetensors", "model.fp16.safetensors"],
  vae: ["diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"],
  clip: ["model.safetensors", "model.fp16.safetensors"],
};

const Config = Schema.Record(Schema.String, Schema.Unknown);

/** Classes that a config.json names. */
export const classesOf = (config: Readonly<Record<string, unknown>>): string[] =>
  [config._class_name, config.architectures].flat().filter((name) => typeof name === "string");

/** Which part a folder holds by its config.json, or undefined when it says nothing of the kind. */
export const recognise = Effect.fnUntraced(function* (folder: Folder) {
  const config = yield* readJson(folder, "config.json", Config);
  const named = config === undefined ? [] : classesOf(config);
  const names: readonly PartName[] = ["unet", "text_encoder", "text_encoder_2", "vae", "clip"];
  return names.find((name) => classes[name].some((c) => named.includes(c)));
});

/** Files that hold weights, in whatever form. */
export const isWeights = (name: string): boolean =>
  /\.(safetensors|bin|ckpt|pt|pth|msgpack|h5|onnx|onnx_data|pkl|gguf|xml)(\.index\.json)?$/i.test(name);

/** The weights file of a part, or a clear refusal. */
const findWeights = Effect.fnUntraced(function* (name: PartName, folder: Folder) {
  for (const file of weightNames[name]) {
    const path = yield* fileIn(folder, file);
    if (path !== undefined) return path;
  }
  const there = (yield* system(folder.path, "cannot be listed", () => readdir(folder.path))).filter(isWeights);
  const expected = weightNames[name][0];
  if (there.some((f) => f.endsWith(".safetensors.index.json"))) {
    return yield* new BundleError({
      file: folder.path,
      problem: "holds weights in several files (sharded), which is not supported yet",
      expected,
      hint: 'Save the model again in one file: save_pretrained(FOLDER, max_shard_size="100GB").',
    });
  }
  const safe = there.filter((f) => f.endsWith(".safetensors"));
  if (safe.length === 0 && there.length > 0) {
    return yield* new BundleError({
      file: folder.path,
      problem: `holds no safetensors weights, only ${there.join(", ")}`,
      expected,
      hint:
        "Pickled weights can run code when they are opened, so they are not read here. Convert them where that does no harm: " +
        "from_pretrained(FOLDER, use_safetensors=False) and save_pretrained(NEW_FOLDER, safe_serialization=True).",
    });
  }
  return yield* new BundleError({
    file: folder.path,
    problem: there.length === 0 ? "holds no weights" : `holds its weights under unknown names: ${there.join(", ")}`,
    expected: weightNames[name].join(" or "),
  });
});

/** A SafetensorsError as the reader of a model folder sees it. */
export const fromSafetensors = (e: SafetensorsError): BundleError =>
  new BundleError({
    file: e.file,
    problem: e.message,
    ...(e.key === undefined ? {} : { key: e.key }),
    ...(e.message.includes("truncated") ? { hint: "Was the download cut off? Fetch the file again." } : {}),
  });

/** Runs plain tensor code; its SafetensorsErrors become BundleErrors, anything else is a defect. */
export const tensors = <A>(run: () => A): Effect.Effect<A, BundleError> =>
  Effect.suspend(() => {
    try {
      return Effect.succeed(run());
    } catch (e) {
      if (e instanceof SafetensorsError) return Effect.fail(fromSafetensors(e));
      throw e;
    }
  });

/**
 * Opens one part: reads its config and header, and its weights once, to hash them and to find values that are not numbers.
 * @param folder the folder that holds config.json and the weights
 */
export const openPart = Effect.fn("openPart")(function* (
  name: PartName,
  folder: Folder,
): Effect.fn.Return<Part, BundleError> {
  const config = yield* readJson(folder, "config.json", Config);
  if (config === undefined) {
    return yield* new BundleError({
      file: join(folder.path, "config.json"),
      problem: "is missing",
      expected: `the config of a ${classes[name][0]}`,
    });
  }
  const named = classesOf(config);
  if (!classes[name].some((c) => named.includes(c))) {
    return yield* new BundleError({
      file: join(folder.path, "config.json"),
      problem: `describes ${named.join(", ") || "no known class"}`,
      key: name === "unet" || name === "vae" ? "_class_name" : "architectures",
      expected: classes[name].join(" or "),
    });
  }
  const file = yield* findWeights(name, folder);
  return yield* withFile(file, (handle) =>
    Effect.gen(function* () {
      const { size, mtimeMs } = yield* system(file, "cannot be read", () => handle.stat());
      const first = new Uint8Array(Math.min(8, size));
      yield* readFully(handle, file, first, 0);
      const start = yield* tensors(() => dataStart(first, size, file));
      const head = new Uint8Array(start);
      yield* readFully(handle, file, head, 0);
      const header = yield* tensors(() => parseHeader(head, size, file));
      const { sha256, nonFinite } = yield* scanWeights(handle, file, header);
      for (const [key, count] of nonFinite) {
        const others = nonFinite.size === 1 ? "" : ` (and such values in ${nonFinite.size - 1} more tensors)`;
        return yield* new BundleError({
          file,
          key,
          problem: `holds ${count} values that are not finite numbers in ${key}${others}`,
          expected: "finite weights",
          hint: `The file (${
            basename(file)
          }) is damaged, or was made by a training run that diverged; fetch or train it again.`,
        });
      }
      return { name, folder, file, config, header, size, modified: mtimeMs, sha256 };
    }));
});
