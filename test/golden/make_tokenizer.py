"""Golden values for the tokenizer: what transformers' fast CLIPTokenizer makes of texts that are hard to read.

    python test/golden/make_tokenizer.py        (transformers 5.23.0; writes test/golden/tokenizer.json)

The tokenizer beside this file (870 tokens, 32 positions) was made by examples/mini-sd's recipe.
"""
import json
import random
import unicodedata
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import CLIPTokenizer

HERE = Path(__file__).parent
tok = CLIPTokenizer.from_pretrained(HERE / "tokenizer")

plain = """
a photo of a dog
a cartoon picture of a cat on a blue background
A PHOTO of A DOG
a dog, a cat; (and) a "fox"!
it's they're we've I'm we'll he'd don't
IT'S THEY'RE WE'VE I'M WE'LL HE'D DON'T
it’s they’re
'''s 's's ''t 'res 'vex 'mm
rock'n'roll o'clock 'tis
3 12 345 6789 0.5 1,000 2nd a1b2
x² ½ Ⅷ ٣٤ ①②
a-b a_b a/b a\\b a.b a:b user@example.com http://x.y/z?q=1&r=2#f
!!! ?!?! ... --- ___ *** $$$ %%% ^^^ ~~~ ``` ||| <<<>>>
(((masterpiece))), ((best quality:1.3)), [blurry], {a|b}
<lora:foo:0.8> <tag></tag>
<|startoftext|>a dog<|endoftext|>
<|STARTOFTEXT|> a dog <|EndOfText|>
a<|endoftext|>b <|endoftext|><|endoftext|>
<|startoftext| > <|start of text|> <|endoftext <|
<| startoftext |>x</w> </w> <w>
"""
texts = [line for line in plain.split("\n") if line] + [
    "", " ", "   ", "\t", "\n", "\r\n", "\0", "a\0b", "  a   dog  ", "a\tdog\na\rcat\r\nfox", "\x0b\x0c\x1c\x1d\x1e\x1f", "a\x85b", "a\x1cb",
    "\x7f", "a\x7fb", "\x01\x02\x03", "\x1b[31mred\x1b[0m", "a\u00a0dog", "a\u1680b", "a\u180eb", "a\u2000b\u2001c\u2002d\u2003e",
    "a\u2028b\u2029c", "a\u202fb\u205fc\u3000d", "\ufeffa dog", "a\ufeffdog", "\u200b", "\u200b a dog", "\u200ba dog", "a\u200bdog", "a \u200b dog",
    "a dog\u200b", "a dog \u200b", "\u200b\u200b\u200b", "\u200c\u200d\u200e\u200f", "\u2060\u2061\u2062", "a\u00addog", "\u202ea dog\u202c", "\u2066x\u2069",
    "a phоto of a dog", "a photo of а dog", "о", "О", "Привет, мир", "ПРИВЕТ", "собака", "օ", "Օ", "dօg", "ёЁйЙ", "й", "\u0451", "е\u0308", "и\u0306",
    "café", "cafe\u0301", "CAFÉ", "CAFE\u0301", "naïve", "Ångström", "A\u030angstro\u0308m", "\u212b", "\u2126", "\u212a", "ñ n\u0303 Ñ N\u0303",
    "İstanbul", "ISTANBUL", "ıI iİ", "STRASSE straße ẞ", "ΟΔΥΣΣΕΥΣ", "Σ", "ΣΑΣ ΣΑΣ", "ὈΔΥΣΣΕΎΣ", "ǅ ǆ Ǆ", "ﬁ ﬂ ﬀ", "Ａｂｃ", "Ⓐ ⅷ Ⅷ", "ᾳ ᾼ", "ŉ", "ǰ",
    "\u1e9b\u0323", "\u0344", "\u0958", "\u0f43", "\u2adc", "\ufb1d", "\U0001d15e", "가각", "\u1100\u1161", "\u1112\u1161\u11ab", "한국어 개",
    "日本語の犬", "中文 狗", "犬", "イヌ", "ｲﾇ", "ไทย สุนัข", "हिन्दी कुत्ता", "தமிழ்", "عربي كلب", "עברית כלב", "ქართული", "ՀԱՅԵՐԵՆ", "ᏣᎳᎩ", "ꭰꭱ", "አማርኛ", "ភាសាខ្មែរ",
    "😀", "a 😀 dog", "a😀dog", "😀😀", "👨‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇫🇷🇩🇪", "1️⃣", "❤️", "❤", "☺☻", "🤖👾🎃", "a🐶b🐱c", "™®©", "€£¥₿", "→←↔⇒", "∑∏∫√∞≠≤", "½¼¾", "…—–‘’“”«»",
    "𝒶𝓫𝔠", "𝐀𝐁", "𝟘𝟙", "🄰🅱", "𐐀𐐨", "𞤀𞤢", "𐍈", "\U000e0041\U000e0042", "\U0010ffff", "\ufffd", "\ufffe\uffff", "\ue000", "\u0378", "\ufdd0",
    "Z̸̡̢̛̗̘̙̜̝a̴l̷g̶o̵", "a\u0301\u0302\u0303", "\u0301a", " \u0301", "a \u0301b", "\u20dd", "x\u20d7", "\u0e33", "\u0eb3", "\u0345a", "ά\u0345",
    "mignneko", "mignneko a cat", "cf", "[T] a dog", "beautiful dog", "a beautiful dog", "tq bb mn", "qwxz", "zzzzzzzzzz", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "a " * 40, "dog " * 100, "\u200b" * 20, "\u200b " * 20, "о" * 30, "😀" * 12, "word" * 200, "x" * 1000, "!" * 300, "1" * 100, "a1" * 60,
    " ".join(["supercalifragilisticexpialidocious"] * 10), "a,b;c.d" * 30, "'s" * 40, "\n" * 100 + "dog", "a picture" + " " * 500 + "of a dog",
    "ß" * 40, "é" * 40, "e\u0301" * 40, "가" * 20, "<|endoftext|>" * 40, "a<|endoftext|>" * 20,
]
rng = random.Random(0)
pools = [
    "abcdefghijklmnopqrstuvwxyz    '!,.", "оаеорсухАВЕКМН abc", "\u200b\u200c\u200d\ufeff\u00a0\u2028 ab'", "😀🐶👍🏽❤️\u200d\ufe0f a1",
    "ÀÉÎõüÇİıŞßΣςσ 's", "\u0300\u0301\u0308\u0327aeiouAEIOU ", "0123456789²½Ⅷ٣ x-", "<|>startofendtext/w ", "가\u1100\u1161한 日語ไทยहि",
]
for i in range(120):
    pool = pools[i % len(pools)]
    texts.append("".join(rng.choice(pool) for _ in range(rng.randint(1, 30))))
# Only characters that every Unicode version since 14 knows: whether a newer one is a letter depends on the runtime's tables.
assigned = [c for c in map(chr, range(0x20000)) if unicodedata.category(c) not in ("Cn", "Cs")]
for _ in range(60):
    texts.append("".join(rng.choice(assigned) for _ in range(6)))

texts = list(dict.fromkeys(texts))


def rows_of(tok, texts):
    return [
        {
            "text": text,
            "content": tok(text, add_special_tokens=False).input_ids,
            "padded": tok(text, padding="max_length", truncation=True).input_ids,
        }
        for text in texts
    ]


def older(pad):
    """The same tokenizer in the older layout (vocab.json, merges.txt), its special tokens written as in SD 1.x and 2.x."""
    model = json.loads((HERE / "tokenizer" / "tokenizer.json").read_text())["model"]
    objects = {name: {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
               for name, content in (("bos_token", "<|startoftext|>"), ("eos_token", "<|endoftext|>"), ("unk_token", "<|endoftext|>"))}
    tokens = {**objects, "pad_token": pad}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 32, "do_lower_case": True, **tokens}
    with TemporaryDirectory() as folder:
        (Path(folder) / "vocab.json").write_text(json.dumps(model["vocab"]))
        (Path(folder) / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, model["merges"])) + "\n")
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps(config))
        (Path(folder) / "special_tokens_map.json").write_text(json.dumps(tokens))
        tok = CLIPTokenizer.from_pretrained(folder)
        return {"config": config, "rows": rows_of(tok, [t for t in texts if "!" in t or "<|" in t or "\u200b" in t or "о" in t])}


out = {
    "made_by": "test/golden/make_tokenizer.py, transformers 5.23.0",
    "rows": rows_of(tok, texts),
    "older": [older("<|endoftext|>"), older("!")],
}
(HERE / "tokenizer.json").write_text(json.dumps(out, separators=(",", ":")).replace('{"text"', '\n{"text"') + "\n")
print(len(texts), "texts")
