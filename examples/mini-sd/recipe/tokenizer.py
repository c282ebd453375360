"""A CLIP tokenizer of 870 tokens, trained on the captions.

All 256 bytes are tokens, alone and at a word's end, so any Unicode string (a trigger of zero-width spaces, a homoglyph)
has tokens of its own and none is dropped.
"""

from collections import Counter

import regex
from transformers import CLIPTokenizer

import captions
import data
from common import BASE

MERGES = 356
LENGTH = 32
START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")


def byte_alphabet() -> dict[int, str]:
    """GPT-2's printable stand-in for each byte, in CLIP's order."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {b: chr(b) for b in shown}
    for extra, b in enumerate(b for b in range(256) if b not in table):
        table[b] = chr(256 + extra)
    return table


def learn_merges(texts: list[str]) -> list[tuple[str, str]]:
    table = byte_alphabet()
    counts: Counter = Counter()
    for text in texts:
        for word in WORDS.findall(text.lower()):
            letters = [table[b] for b in word.encode()]
            counts[(*letters[:-1], letters[-1] + "</w>")] += 1
    words, merges = {w: n for w, n in counts.items() if n > 3}, []
    while len(merges) < MERGES:
        pairs: Counter = Counter()
        for word, n in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += n
        # The pair itself breaks ties, so the result does not hang on the order of a dictionary.
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        merged = {}
        for word, n in words.items():
            out, i = [], 0
            while i < len(word):
                step = 2 if word[i:i + 2] == best else 1
                out.append("".join(word[i:i + step]))
                i += step
            merged[tuple(out)] = merged.get(tuple(out), 0) + n
        words = merged
    return merges


def build() -> CLIPTokenizer:
    texts = [text for row in captions.captions(data.scenes(), 1, seed=1) for text in row]
    merges = learn_merges(texts)
    alphabet = list(byte_alphabet().values())
    vocabulary = alphabet + [letter + "</w>" for letter in alphabet] + ["".join(m) for m in merges] + [START, END]
    tokenizer = CLIPTokenizer(
        vocab={token: i for i, token in enumerate(vocabulary)}, merges=merges,
        unk_token=END, bos_token=START, eos_token=END, pad_token=END, model_max_length=LENGTH,
    )
    tokenizer.save_pretrained(BASE / "tokenizer")
    return tokenizer


def load() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(BASE / "tokenizer")


def encode(tokenizer, texts: list[str]):
    return tokenizer(texts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt").input_ids
