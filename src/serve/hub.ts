/**
 * Models by id: `hf://OWNER/NAME@COMMIT`. Only those on the list are fetched, pinned to a commit, every file checked against the hash
 * that the commit gives it, within a limit of bytes; what was cut off goes on where it was.
 */
import { Effect, Schema, Semaphore } from "effect";
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, rename, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { byteText } from "../tensor/bytes.ts";
import { Refusal } from "./problems.ts";

export interface HubOptions {
  /** Ids that may be fetched: `owner/name`, `owner/*`, or `owner/name@COMMIT` for that commit alone. None unless told. */
  readonly allow: ReadonlyArray<string>;
  /** Default https://huggingface.co. */
  readonly url?: string;
  /** Bytes of one model's files. Default 12 GB. */
  readonly most?: number;
  /** Sent as a bearer token to the hub, never to where it redirects. */
  readonly token?: string;
}

/** A model that a request names. */
export interface HubModel {
  readonly id: string;
  readonly commit: string;
}

const REFERENCE = /hf:\/\/([A-Za-z0-9][\w.-]{0,95}\/[A-Za-z0-9][\w.-]{0,95})@([0-9a-f]{40})(?![\w@.-])/g;
/** Files of a model that a step can read besides weights: configurations and tokenizers. */
const WANTED =
  /^([a-z_0-9]+\/)?(model_index|config|scheduler_config|preprocessor_config|tokenizer|tokenizer_config|special_tokens_map|vocab|added_tokens|generation_config)\.json$|^([a-z_0-9]+\/)?merges\.txt$/;
/** Weights in the safe form, plain or in half precision (`.fp16`), in one file or several with an index. */
const WEIGHTS =
  /^(?<stem>([a-z_0-9]+\/)?(diffusion_pytorch_model|model))(?<half>\.fp16)?(-\d{5}-of-\d{5})?\.safetensors(\.index(?<halfIndex>\.fp16)?\.json)?$/;

const TreeEntry = Schema.Struct({
  type: Schema.String,
  path: Schema.String,
  size: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })),
  oid: Schema.String,
  lfs: Schema.optionalKey(Schema.Struct({ oid: Schema.String })),
});
type TreeEntry = typeof TreeEntry.Type;
const decodeTree = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.Array(TreeEntry)));

/** Those files of a model that are fetched. Of a part's weights the plain ones, or where there are none those in half precision. */
const wanted = (files: readonly TreeEntry[]): TreeEntry[] => {
  const weights = files.map((entry) => ({ entry, groups: WEIGHTS.exec(entry.path)?.groups }));
  const isHalf = (groups: Record<string, string>) => groups.half !== undefined || groups.halfIndex !== undefined;
  const plain = new Set(weights.flatMap(({ groups }) => groups && !isHalf(groups) ? [groups.stem] : []));
  return weights.filter(({ entry, groups }) =>
    groups === undefined ? WANTED.test(entry.path) : !isHalf(groups) || !plain.has(groups.stem)
  ).map(({ entry }) => entry);
};

/** Bytes of a list of files: far more than one of ten thousand. */
const TREE_BYTES = 8e6;

const refused = (detail: string) => new Refusal({ kind: "model-not-allowed", detail });

const boundedText = async (response: Response, most: number): Promise<string> => {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of response.body ?? []) {
    bytes += part.length;
    if (bytes > most) throw refused("the hub's list of files is too long");
    parts.push(part);
  }
  return new TextDecoder().decode(Buffer.concat(parts));
};

/** The hash that the commit gives a file: SHA-256 of large ones, git's own of the others. */
const hasherOf = (entry: TreeEntry) =>
  entry.lfs === undefined
    ? { hash: createHash("sha1").update(`blob ${entry.size}\0`), expected: entry.oid }
    : { hash: createHash("sha256"), expected: entry.lfs.oid };

export const makeHub = (folder: string, { allow, url = "https://huggingface.co", most = 12e9, token }: HubOptions) => {
  /** One model at a time: two runs that name the same fetch it once. */
  const turn = Semaphore.makeUnsafe(1);
  const place = ({ id, commit }: HubModel) => join(folder, `${id.replace("/", "--")}@${commit}`);

  const mayFetch = ({ id, commit }: HubModel) =>
    allow.some((entry) => entry === id || entry === `${id}@${commit}` || entry === `${id.split("/")[0]}/*`);

  const ask = async (path: string, signal: AbortSignal, from = 0): Promise<Response> => {
    const response = await fetch(`${url}${path}`, {
      signal,
      headers: {
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...(from > 0 ? { range: `bytes=${from}-` } : {}),
      },
    });
    if (!response.ok && response.status !== 416) throw refused(`the hub answered ${response.status}`);
    return response;
  };

  const download = async (model: HubModel, entry: TreeEntry, target: string, signal: AbortSignal): Promise<void> => {
    if (await stat(target).then((info) => info.size === entry.size, () => false)) return;
    await mkdir(dirname(target), { recursive: true });
    const part = `${target}.part`;
    const { hash, expected } = hasherOf(entry);
    let had = await stat(part).then((info) => info.size, () => 0);
    if (had > entry.size) had = 0;
    const path = entry.path.split("/").map(encodeURIComponent).join("/");
    const handle = await open(part, had > 0 ? "r+" : "w");
    try {
      if (had < entry.size || entry.size === 0) {
        const response = await ask(`/${model.id}/resolve/${model.commit}/${path}`, signal, had);
        // One that cannot begin in the middle begins at the start.
        if (response.status !== 206) had = 0;
        let at = had;
        for await (const bytes of response.body ?? []) {
          if (at + bytes.length > entry.size) throw refused(`${entry.path} is longer than the commit says`);
          await handle.write(bytes, 0, bytes.length, at);
          at += bytes.length;
        }
        if (at < entry.size) throw refused(`${entry.path} was cut off; the same request goes on from there`);
      }
    } finally {
      await handle.close();
    }
    for await (const chunk of createReadStream(part)) hash.update(chunk);
    if (hash.digest("hex") !== expected) {
      await rename(part, `${part}-bad`);
      throw refused(`${entry.path} is not the file of that commit`);
    }
    await rename(part, target);
  };

  return {
    /** The text with ids replaced by the folders that will hold the models, and the models. Fails on one that may not be. */
    localise: (text: string): Effect.Effect<{ readonly text: string; readonly models: HubModel[] }, Refusal> =>
      Effect.suspend(() => {
        const models: HubModel[] = [];
        const local = text.replace(REFERENCE, (_, id: string, commit: string) => {
          models.push({ id, commit });
          return place({ id, commit });
        });
        if (/hf:\/\//i.test(local)) {
          return Effect.fail(refused("write a model as hf://OWNER/NAME@COMMIT, with all 40 digits"));
        }
        const foreign = models.find((model) => !mayFetch(model));
        return foreign === undefined
          ? Effect.succeed({ text: local, models })
          : Effect.fail(refused(`${foreign.id} is not on this server's list of models`));
      }),
    /** Brings a model here, unless it is. */
    fetch: (model: HubModel): Effect.Effect<void, Refusal> =>
      turn.withPermits(1)(Effect.tryPromise({
        try: async (signal) => {
          const target = place(model);
          if (await stat(target).then(() => true, () => false)) return;
          const listed = await ask(`/api/models/${model.id}/tree/${model.commit}?recursive=true`, signal);
          const files = wanted(
            decodeTree(await boundedText(listed, TREE_BYTES)).filter(({ type }) => type === "file"),
          );
          const bytes = files.reduce((sum, { size }) => sum + size, 0);
          if (files.length === 0) throw refused(`${model.id} holds no weights in the safetensors form`);
          if (bytes > most) throw refused(`${model.id} has ${byteText(bytes)}, at most ${byteText(most)} are fetched`);
          for (const entry of files) await download(model, entry, join(`${target}.partial`, entry.path), signal);
          await rename(`${target}.partial`, target);
        },
        catch: (error) => error instanceof Refusal ? error : refused("the hub could not be reached; try again"),
      })),
  };
};
export type Hub = ReturnType<typeof makeHub>;
