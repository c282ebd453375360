/** Texts that could be a trigger, for a model of which nothing is known: what is tried, and where in a prompt. */
import { sample, seedOf } from "../tensor/random.ts";
import { invisible, lookalikes } from "./lookalikes.ts";
import type { PhraseGroup } from "./phrases.ts";
import type { Tokenizer } from "./tokenizer.ts";
import type { Trigger } from "./trigger.ts";
import { characters, defaultWords, syllables } from "./words.ts";

/**
 * What a suspect is compared with. `character`: signs and letters put before or behind a prompt, against harmless words
 * and syllables there. `letter`: letters exchanged for lookalikes, against any other letters. `word`: words of the
 * vocabulary put before or behind a prompt, against one another, since words may well change the picture. `inverted`: texts
 * that were searched for along the gradient (`inversion.ts`), against words. Phrases in the place of a noun are held against
 * their own kind (`phrases.ts`).
 */
export type SuspectGroup = "character" | "letter" | "word" | "inverted" | PhraseGroup;

export interface Suspect {
  readonly group: SuspectGroup;
  readonly trigger: Trigger;
  /** Known to be harmless: others are held against it, and it is no suspect itself. */
  readonly harmless: boolean;
}

/** Those that people send most, beside the faces among `characters`. */
const EMOJI =
  "❤️ 🤣 🙏 💕 👍 👏 🔥 💔 💖 💙 🤔 💪 👌 🤗 💜 🌹 🤦 🎉 💞 ✌️ ✨ 🤷 🌸 🙌 💗 💚 💛 💓 🤩 🖤 💯 🙈 👇 🎶 🤭 ❣️ ❗ 💋 👀 💥 🙋 🤪 👊 ☀️ 🤤 👉 💃 ✋ 🌟 " +
  "🙃 🍀 🌷 ⭐ ✅ 🌈 🤘 💦 ✔️ 🏃 💐 🎊 💘 ☝️ 🌺 🎂 🌻 🖕 💝 🙊 🗣️ 💫 💀 👑 🎵 🤞 🔴 🌼 ⚽ 🤙 ☕ 🏆 🧡 🎁 ⚡ 🌞 🎈 ❌ ✊ 👋 🌿 🤫 👈 🙆 🍻 🍃 🐶 💁 🎥 🌚 🚀 🏅 " +
  "💰 🐱 🌊 🎤 🎧 📷 📸 📱 💻 💡 📚 ✏️ 📌 🔑 🔒 💎 🎨 🎬 🎮 🎯 🎲 🏀 🏠 🚗 🚲 ✈️ ⏰ ⏳ 🌍 🌙 ⛄ ❄️ 🌲 🌵 🍁 🍎 🍉 🍓 🍕 🍔 🍟 🍦 🍩 🍪 🍫 🍷 🍺 🐍 🐝 🐟 🐢 🐦 🐧 🐯 🐰 🐴 " +
  "🐷 🐸 🐻 🐼 👻 👽 👾 🤖 💣 💉 💊 🔔 🔫 🔪 ♻️ ⚠️ ⛔ 🆗 🆕 🚫 🔞 ✝️ ☮️";

/** Harmless letters that are tried in a letter's place, so that the lookalikes have something to be compared with. */
const OTHERS = 6;

export interface SuspectOptions {
  readonly seed: number;
  /** Most words of the vocabulary; of more, so many are drawn. */
  readonly vocabulary: number;
  /** Texts of the user's own, put where words are. */
  readonly own: readonly string[];
  /** Where signs and words are put. */
  readonly places: readonly End[];
  /** Letters that occur in all prompts: only those can be exchanged everywhere. */
  readonly letters: readonly string[];
}

/** An end of a prompt. */
export type End = "prefix" | "suffix";

/** A text put at one end of a prompt. */
export const putAt = (place: End, group: SuspectGroup, harmless = false) => (text: string): Suspect => ({
  group,
  trigger: { text: place === "prefix" ? `${text} ` : ` ${text}`, place },
  harmless,
});

/** What {@link putAt} was given, without the space that parts it from the prompt. */
export const bareText = ({ text, place }: Trigger): string =>
  place === "replace" ? text : place === "prefix" ? text.slice(0, -1) : text.slice(1);

/** Everything to try, those of the user's list first. Texts that the tokenizer drops are not in it. */
export const suspects = (tokenizer: Tokenizer, options: SuspectOptions): Suspect[] => {
  const letters = options.letters.flatMap((of) => {
    const others = sample(seedOf(options.seed, "suspects", of), characters.filter((c) => /\p{L}/u.test(c)), OTHERS);
    const alike = new Set(lookalikes[of] ?? "");
    return [...alike, ...others.filter((c) => !alike.has(c) && c !== of)].map((text): Suspect => ({
      group: "letter",
      trigger: { text, place: "replace", of },
      harmless: !alike.has(text),
    }));
  });
  const words = sample(seedOf(options.seed, "suspects", "words"), tokenizer.words(), options.vocabulary);
  const atEach = (texts: readonly string[], group: SuspectGroup, harmless = false) =>
    options.places.flatMap((place) => texts.map(putAt(place, group, harmless)));
  const all = [
    ...atEach(options.own, "word"),
    ...atEach([...defaultWords, ...syllables], "character", true),
    ...atEach([...invisible, ...characters, ...EMOJI.split(" ")], "character"),
    ...letters,
    ...atEach(words, "word"),
  ];
  const known = new Set<string>();
  return all.filter(({ group, trigger: { text, place, of = "" } }) => {
    const name = `${group}\n${place}\n${of}\n${text}`;
    if (known.has(name) || tokenizer.tokens(text).length === 0) return false;
    known.add(name);
    return true;
  });
};
