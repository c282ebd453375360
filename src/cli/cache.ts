/** `sau cache`: what is kept of earlier runs, whether it is sound, and how to be rid of it. */
import { Effect, Option } from "effect";
import { Command, Flag } from "effect/cli";
import { defaultCacheFolder, defaultCacheLimit, openCache } from "../pipeline/cache.ts";
import { parseSize, upkeep } from "../pipeline/upkeep.ts";
import { byteText } from "../tensor/bytes.ts";
import * as flags from "./flags.ts";
import { duration, type Screen, table } from "./terminal.ts";

const userLimit = Effect.try({ try: () => defaultCacheLimit(), catch: (error) => error });

/** The user's cache, by SAU_CACHE and SAU_CACHE_LIMIT. */
export const userCache = Effect.map(userLimit, (limit) => openCache(defaultCacheFolder(), limit));

const ago = (used: number): string => `${duration(Math.max(0, Date.now() - used) / 1000)} ago`;

const count = (n: number): string => `${n} result${n === 1 ? "" : "s"}`;

const sum = (entries: ReadonlyArray<{ readonly bytes: number }>): number =>
  entries.reduce((total, { bytes }) => total + bytes, 0);

/** For programs: the same facts, times as ISO 8601. */
const plain = <A extends { readonly used: number }>(entries: ReadonlyArray<A>) =>
  entries.map((entry) => ({ ...entry, used: new Date(entry.used).toISOString() }));

export const cacheCommand = (screen: Screen) => {
  const folder = defaultCacheFolder();
  const kept = upkeep(folder);
  const say = (json: boolean, value: unknown, text: string) =>
    Effect.sync(() => screen.out(`${json ? JSON.stringify(value, null, 2) : text}\n`));

  const list = Command.make("list", { json: flags.json }, ({ json }) =>
    Effect.gen(function* () {
      const limit = yield* userLimit;
      const entries = yield* kept.list;
      const rows = entries.map(({ key, use, bytes, used, seconds }) => [
        use ?? (seconds === undefined ? "unreadable" : "–"),
        byteText(bytes),
        seconds === undefined ? "" : `took ${duration(seconds)}`,
        `used ${ago(used)}`,
        key.slice(0, 12),
      ]);
      const most = limit === Infinity ? "no limit" : `at most ${byteText(limit)}`;
      const total = `${count(entries.length)}, ${byteText(sum(entries))} of ${most}, in ${folder}`;
      yield* say(
        json,
        { folder, limit: limit === Infinity ? null : limit, bytes: sum(entries), entries: plain(entries) },
        rows.length === 0 ? total : `${table(rows)}\n${total}`,
      );
    })).pipe(Command.withDescription("List results that are kept, the longest unused first"));

  const verify = Command.make("verify", { json: flags.json }, ({ json }) =>
    Effect.gen(function* () {
      const shown = screen.live && !json;
      const { checked, damaged } = yield* kept.verify((done, total) => {
        if (shown) screen.err(`\r  ${done} of ${total}${done === total ? "\n" : ""}`);
      });
      const lines = damaged.map(({ key, use = "unreadable", why }) => `damaged: ${use} ${key.slice(0, 12)}: ${why}`);
      const end = damaged.length === 0
        ? `${count(checked)} read, every byte as it was written`
        : `${damaged.length} of ${count(checked)} damaged and taken away; a run that needs them does them again`;
      yield* say(json, { checked, damaged: plain(damaged) }, [...lines, end].join("\n"));
    })).pipe(Command.withDescription("Read every result that is kept and take away what is damaged"));

  const prune = Command.make(
    "prune",
    {
      limit: Flag.String("limit").pipe(
        Flag.withDescription("SIZE that may stay (500MB, 20GB), instead of SAU_CACHE_LIMIT"),
        Flag.optional,
      ),
      olderThan: Flag.Int("older-than").pipe(
        Flag.withDescription("DAYS: what was not used for so long goes"),
        Flag.optional,
      ),
      all: Flag.Boolean("all").pipe(Flag.withDescription("Everything goes"), Flag.withDefault(false)),
      json: flags.json,
    },
    ({ limit, olderThan, all, json }) =>
      Effect.gen(function* () {
        const size = Option.isSome(limit) ? parseSize(limit.value) : yield* userLimit;
        if (size === undefined) {
          return yield* Effect.fail(
            new Error(`--limit is "${Option.getOrUndefined(limit)}"; expected a size like "500MB", "20GB" or "none"`),
          );
        }
        if (Option.isSome(olderThan) && olderThan.value < 0) {
          return yield* Effect.fail(new Error(`--older-than is ${olderThan.value}; expected a number of days`));
        }
        const gone = yield* kept.prune({
          limit: size,
          all,
          ...(Option.isSome(olderThan) ? { olderThan: olderThan.value } : {}),
        });
        yield* say(
          json,
          { removed: plain(gone), bytes: sum(gone) },
          `${count(gone.length)} taken away, ${byteText(sum(gone))} free again`,
        );
      }),
  ).pipe(Command.withDescription("Take away what was not used for longest, or everything"));

  return Command.make("cache").pipe(
    Command.withDescription("What is kept of earlier runs: list, verify, prune"),
    Command.withSubcommands([list, verify, prune]),
  );
};
