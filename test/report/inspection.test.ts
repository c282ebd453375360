import { after, describe, it } from "node:test";
import assert from "node:assert/strict";
import { cpSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { Effect } from "effect";
import { inspect } from "../../src/diffusion/inspect.ts";
import type { Inspection } from "../../src/diffusion/inspection.ts";
import { renderInspection } from "../../src/report/inspection.ts";
import { normal } from "../../src/tensor/random.ts";
import { parseHeader, readTensor, write } from "../../src/tensor/safetensors.ts";
import { put, tempFolder } from "../support/bundles.ts";
import { randomModel } from "../support/random_model.ts";

const HOSTILE = `</title></style><script>alert(1)</script>"'><img/src=x/onerror=alert(2)>&lt;\u202e\u0000`;
const temp = tempFolder();
after(() => rmSync(temp, { recursive: true, force: true }));

/** A model, and a copy with one layer moved and texts of a stranger in all that may hold some. */
const pair = async (name: string, text: string): Promise<Inspection> => {
  const base = randomModel(join(temp, name)), other = join(temp, `${name}-moved`);
  cpSync(base, other, { recursive: true });
  const file = join(other, "unet/diffusion_pytorch_model.safetensors");
  const bytes = new Uint8Array(readFileSync(file)), header = parseHeader(bytes, bytes.length, file);
  const tensors = new Map([...header.entries.keys()].map((key) => [key, readTensor(bytes, header, key)]));
  const key = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight", old = tensors.get(key);
  assert.ok(old !== undefined);
  tensors.set(key, { ...old, data: old.data.map((x, i) => x + (i < 32 ? 0.5 : 0)) });
  tensors.set(`${text}.weight`, normal(1, [2, 2]));
  put(file, write(tensors, { note: text, [text]: "x" }));
  const tokenizer = join(other, "tokenizer/tokenizer.json"), json = JSON.parse(readFileSync(tokenizer, "utf8"));
  put(tokenizer, {
    ...json,
    added_tokens: [...json.added_tokens, { ...json.added_tokens[0], id: 870, content: text }],
  });
  const config = join(other, "unet/config.json");
  put(config, { ...JSON.parse(readFileSync(config, "utf8")), _name_or_path: text, act_fn: text });
  return await Effect.runPromise(inspect(base, other));
};

const tags = (page: string): string[] => page.match(/<[a-z][^>]*>/giu) ?? [];

describe("inspect.html", () => {
  it(
    "shows what moved, the layers as a picture with the directions, findings, parts and files",
    { timeout: 120_000 },
    async () => {
      const page = renderInspection(await pair("plain", "x"));
      const ids = [...page.matchAll(/<section id="([a-z]+)"/gu)].map(([, id]) => id);
      assert.deepEqual(ids, ["moved", "settings", "odd", "parts", "files"]);
      assert.match(page, /only attn2\.to_k moved, in few directions/u);
      // One cell has a colour, and says that the change has one direction.
      assert.equal(
        page.match(/<td style="background:rgb\([\d,]+\);color:#\w+" title="mid_block[^"]*attn2\.to_k[^"]*">1<\/td>/gu)
          ?.length,
        1,
      );
      assert.match(page, /Nothing moved in: downsamplers, resnets/u);
      assert.match(page, /<code>added-tokens<\/code>/u);
      assert.doesNotMatch(page, /could not be drawn|undefined|NaN|\[object/u);
      const alone = renderInspection({ ...await pair("alone", "x"), other: null, comparison: null });
      assert.match(alone, /<section id="layers"/u);
      assert.ok((alone.match(/<td style="background:rgb/gu)?.length ?? 0) > 80);
    },
  );

  it("loads nothing and is the same markup whatever its texts say", { timeout: 120_000 }, async () => {
    const [calm, hostile] = [
      renderInspection(await pair("calm", "x")),
      renderInspection(await pair("calm-2", HOSTILE)),
    ];
    const kinds = (page: string) => new Set(tags(page).map((t) => t.replace(/"[^"]*"/gu, '""')));
    const added = [...kinds(hostile)].filter((t) =>
      !kinds(calm).has(t) && !/^<(details|summary|span class="")/u.test(t)
    );
    assert.deepEqual(added, []);
    assert.doesNotMatch(hostile, /<script|<img src="?x|onerror="/u);
    assert.doesNotMatch(hostile, /(?!\n)[\p{Cc}\p{Cf}]/u);
    for (const tag of tags(hostile)) {
      assert.doesNotMatch(tag, /^<(script|link|iframe|object|embed|base|form|video|audio|source)\b/iu);
      for (const [, value] of tag.matchAll(/\s(?:src|href)="([^"]*)"/giu)) {
        assert.match(value, /^(#[a-z]+|data:image\/png;base64,[A-Za-z0-9+/=]+)$/u);
      }
    }
  });
});
