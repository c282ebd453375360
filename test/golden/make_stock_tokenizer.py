"""Golden values for the built-in CLIP tokenizer: what transformers' CLIPTokenizer makes of hard texts.

    python test/golden/make_stock_tokenizer.py        (transformers 5.23.0; writes test/golden/stock_tokenizer.json)

The vocabulary is made here as OpenAI's and OpenCLIP's tokenizers make theirs, from src/diffusion/clip_bpe/merges.txt.gz;
where open_clip's own file can be found (argument: its bpe_simple_vocab_16e6.txt.gz), the merges are compared with it.
Texts are those of tokenizer.json, a part of them padded too, with the special tokens of Stable Diffusion 1.x and 2.x.
"""
import gzip
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import CLIPTokenizer

HERE = Path(__file__).parent
merges = gzip.open(HERE / "../../src/diffusion/clip_bpe/merges.txt.gz", "rt", encoding="utf-8").read().split("\n")[1:-1]
assert len(merges) == 49152 - 256 - 2
if len(sys.argv) > 1:
    theirs = gzip.open(sys.argv[1], "rt", encoding="utf-8").read().split("\n")[1 : 49152 - 256 - 2 + 1]
    assert merges == theirs
    print("merges are open_clip's")

# bytes_to_unicode of OpenAI's simple_tokenizer.py: printable bytes stand for themselves and come first.
printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
letters = [chr(b) for b in printable] + [chr(256 + n) for n in range(256 - len(printable))]
vocab = letters + [c + "</w>" for c in letters] + ["".join(m.split(" ")) for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
assert len(vocab) == len(set(vocab)) == 49408


def tokenizer(pad, folder):
    special = lambda text: {"content": text, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    tokens = {"bos_token": special("<|startoftext|>"), "eos_token": special("<|endoftext|>"),
              "unk_token": special("<|endoftext|>"), "pad_token": pad}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True, **tokens}
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocab)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").write_text(json.dumps(tokens))
    return CLIPTokenizer.from_pretrained(folder)


texts = [row["text"] for row in json.loads((HERE / "tokenizer.json").read_text())["rows"]]
texts += ["masterpiece, best quality, 1girl, solo, (detailed eyes:1.2)", "a photograph of an astronaut riding a horse"]
with TemporaryDirectory() as a, TemporaryDirectory() as b:
    one, two = tokenizer("<|endoftext|>", Path(a)), tokenizer("!", Path(b))
    ids = lambda tok, text: tok(text, add_special_tokens=False).input_ids
    rows = [[text, ids(one, text)] for text in texts]
    # Where the padding token makes a difference, and two rows whole.
    other = [[text, ids(two, text)] for text in texts if ids(two, text) != ids(one, text)]
    padded = [[text, *(tok(text, padding="max_length", truncation=True).input_ids for tok in (one, two))]
              for text in ("a dog", "dog " * 100)]
out = {"made_by": "test/golden/make_stock_tokenizer.py, transformers 5.23.0", "rows": rows, "other": other, "padded": padded}
(HERE / "stock_tokenizer.json").write_text(json.dumps(out, separators=(",", ":")).replace('],["', '],\n["') + "\n")
print(len(rows), "texts,", len(other), "that 2.x reads otherwise")
