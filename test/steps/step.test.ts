import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { resolve } from "node:path";
import { Context, Effect, Exit, Schema } from "effect";
import { explain, StepError } from "../../src/steps/errors.ts";
import { PathBase, PathString } from "../../src/steps/path_string.ts";
import { Port } from "../../src/steps/port.ts";
import { Progress, type ProgressReport, report } from "../../src/steps/progress.ts";
import { type AnyStep, Step } from "../../src/steps/step.ts";

const number = Port.json("number", "a number", Number);

class Offset extends Context.Service<Offset, { readonly by: number }>()("test/Offset") {}
class Overflow extends Schema.TaggedError<Overflow>()("Overflow", { at: Schema.Number }) {}

const scale = Step.make("scale", {
  version: 1,
  description: "Multiplies a number and adds the offset.",
  settings: Schema.Struct({
    by: Schema.Number.annotate({ description: "factor" }).pipe(Schema.withDecodingDefaultKey(Effect.succeed(2))),
    file: PathString.pipe(Schema.withDecodingDefaultKey(Effect.succeed("x"))),
  }),
  inputs: { value: number, more: Port.optional(number) },
  outputs: { scaled: number },
  run: Effect.fnUntraced(function* ({ value, more }, { by, file }) {
    const offset = yield* Offset;
    const name: string = file;
    yield* report({ done: name.length, total: 1 });
    const scaled = value * by + (more ?? 0) + offset.by;
    if (scaled > 1000) return yield* new Overflow({ at: scaled });
    return { scaled };
  }),
});

const withOffset = Effect.provideService(Offset, { by: 0 });

describe("a step in a script", () => {
  it("takes settings as a user writes them, fills in defaults, and is typed", async () => {
    const program: Effect.Effect<{ readonly scaled: number }, Overflow | StepError, Offset> = scale.run(
      { value: 3 },
      {},
    );
    assert.deepEqual(await Effect.runPromise(withOffset(program)), { scaled: 6 });
    assert.deepEqual(await Effect.runPromise(withOffset(scale.run({ value: 3, more: 1 }, { by: 5 }))), { scaled: 16 });
    // @ts-expect-error an input that is not optional must be there
    const missing = () => scale.run({}, {});
    // @ts-expect-error a setting of the wrong type does not compile
    const wrong = () => scale.run({ value: 1 }, { by: "two" });
    assert.equal(typeof missing, typeof wrong);
  });

  it("lists every wrong setting at once", async () => {
    const bad: { by: number } = JSON.parse(`{ "by": "two", "speed": 1 }`);
    const error = await Effect.runPromise(withOffset(Effect.flip(scale.run({ value: 1 }, bad))));
    assert.ok(error instanceof StepError);
    assert.match(explain(error), /step "scale" failed/);
    assert.match(explain(error), /by/);
    assert.match(explain(error), /speed/);
  });

  it("keeps the program's own errors typed", async () => {
    const exit = await Effect.runPromiseExit(withOffset(scale.run({ value: 999 }, {})));
    assert.ok(Exit.isFailure(exit));
    const handled = scale.run({ value: 999 }, {}).pipe(
      Effect.catchTag("Overflow", (e) => Effect.succeed({ scaled: e.at })),
    );
    assert.deepEqual(await Effect.runPromise(withOffset(handled)), { scaled: 1998 });
  });

  it("reports progress to whoever listens, and to nobody by default", async () => {
    const heard: ProgressReport[] = [];
    const listened = scale.run({ value: 1 }, { file: "abc" }).pipe(
      Effect.provideService(Progress, { report: (r) => Effect.sync(() => void heard.push(r)) }),
    );
    await Effect.runPromise(withOffset(listened));
    assert.equal(heard.length, 1);
  });

  it("may stand in a list of any steps", () => {
    const list: ReadonlyArray<AnyStep<Offset>> = [scale];
    assert.equal(list[0].name, "scale");
  });

  it("refuses a name that is both an input and a setting", () => {
    assert.throws(() =>
      Step.make("bad", {
        version: 1,
        description: "",
        settings: Schema.Struct({ value: Schema.Number }),
        inputs: { value: number },
        outputs: {},
        run: () => Effect.succeed({}),
      }), /both an input and a setting/);
  });
});

describe("PathString", () => {
  it("resolves against the folder that is provided, else the current one", async () => {
    const decode = Schema.decodeUnknownEffect(PathString)("a/b");
    assert.equal(await Effect.runPromise(decode), resolve("a/b"));
    assert.equal(await Effect.runPromise(Effect.provideService(decode, PathBase, "/base")), "/base/a/b");
    assert.equal(Schema.decodeUnknownSync(PathString)("/abs"), "/abs");
  });
});

describe("explain", () => {
  it("puts system errors in plain words", () => {
    const enospc = Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC", path: "/x" });
    assert.match(explain(enospc), /no room left on the disk while writing \/x/);
    assert.match(explain(new StepError({ step: "cure", cause: enospc })), /step "cure" failed: no room left/);
    assert.equal(explain("text"), "text");
  });
});
