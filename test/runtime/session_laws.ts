/** Laws of a session, the same on every device. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Context, Effect, Exit, Fiber, Layer, Result, Scope } from "effect";
import { type Device, isDevice, Runtime, type RuntimeError, type Session, toHost } from "../../src/runtime/mod.ts";
import type { DeviceTensor, HostTensor } from "../../src/runtime/mod.ts";
import { affine, chain, eachType } from "../support/graphs.ts";
import { withRuntime } from "../support/runtime.ts";

/** A software GPU compiles every shader on the CPU. */
const PATIENT = { timeout: 120_000 };
const N = 4;
const filled = (v: number, dims: readonly number[] = [N, N]): HostTensor => ({
  dims,
  data: new Float32Array(dims.reduce((a, b) => a * b, 1)).fill(v),
});
const first = (t: HostTensor | DeviceTensor): number => {
  assert.ok(!isDevice(t), "expected a host tensor");
  return Number(t.data[0]);
};
const message = <A>(effect: Effect.Effect<A, RuntimeError>): Effect.Effect<string> =>
  Effect.result(effect).pipe(Effect.map((r) => {
    assert.ok(Result.isFailure(r), "expected a RuntimeError");
    return r.failure.message;
  }));
const open = (n = N, w = 2) => Effect.flatMap(Effect.service(Runtime), (runtime) => runtime.session(affine(n, w)));

const VALUES = {
  float32: () => Float32Array.of(-1, 2),
  float16: () => Float16Array.of(-1, 2),
  int32: () => Int32Array.of(-1, 2),
  int64: () => BigInt64Array.of(-1n, 2n),
};
type NumberType = keyof typeof VALUES;

/** The laws for one device. `types`: the element types that it computes with. */
export const sessionLaws = (
  device: Device,
  types: readonly NumberType[] = ["float32", "float16", "int32", "int64"],
): void => {
  const run = <A, E>(program: Effect.Effect<A, E, Runtime | Scope.Scope>): Promise<A> => withRuntime(program, device);

  describe(`a session on ${device}`, () => {
    it(
      "computes with weights that stay in an external file, at an odd offset",
      PATIENT,
      () =>
        run(Effect.gen(function* () {
          const session = yield* open();
          const out = yield* session.run({ x: filled(1) });
          assert.deepEqual(out.y.dims, [N, N]);
          assert.equal(first(out.y), 3);
          assert.ok(Math.abs(first(out.s) - 1 / (1 + Math.exp(-3))) < 1e-6);
        })),
    );

    it("tells the types of its inputs and outputs", PATIENT, () =>
      run(Effect.gen(function* () {
        const session = yield* open();
        assert.deepEqual([...session.inputs], [["x", { dtype: "float32", dims: [N, N] }]]);
        assert.deepEqual([...session.outputs.keys()], ["y", "s"]);
      })));

    it(
      "keeps outputs on the device, takes them back, and reads them without ending them",
      PATIENT,
      () =>
        run(Effect.gen(function* () {
          const session = yield* open();
          let x: HostTensor | DeviceTensor = filled(1);
          for (let i = 0; i < 3; i++) {
            const { y, s }: Record<string, HostTensor | DeviceTensor> = yield* session.run({ x }, { keep: ["y"] });
            assert.ok(isDevice(y) && !isDevice(s));
            assert.deepEqual([y.dtype, y.dims], ["float32", [N, N]]);
            if (isDevice(x)) x.dispose();
            x = y;
          }
          assert.equal(first(yield* toHost(x)), 27);
          assert.equal(first(yield* toHost(x)), 27);
          assert.equal(first((yield* session.run({ x })).y), 81);
        })),
    );

    it(
      "feeds what another session of the same runtime kept, and what was uploaded",
      PATIENT,
      () =>
        run(Effect.gen(function* () {
          const runtime = yield* Runtime;
          const a = yield* open(), b = yield* open(N, 9);
          const up = yield* runtime.upload(filled(1));
          const { y } = yield* a.run({ x: up }, { keep: ["y"] });
          assert.equal(first((yield* b.run({ x: y })).y), 30);
          assert.equal(first((yield* b.run({ x: up })).y), 10);
          assert.equal(first(yield* toHost(up)), 1);
        })),
    );

    it(
      "says which feed does not fit, what it wanted and what it was given",
      PATIENT,
      () =>
        run(Effect.gen(function* () {
          const session = yield* open();
          assert.match(yield* message(session.run({})), /input x is missing \(wanted float32\[4, 4\]\)/);
          assert.match(
            yield* message(session.run({ x: filled(1, [2, 8]) })),
            /input x: wanted float32\[4, 4\], given float32\[2, 8\]/,
          );
          assert.match(
            yield* message(session.run({ x: { dims: [N, N], data: new Int32Array(N * N) } })),
            /wanted float32\[4, 4\], given int32\[4, 4\]/,
          );
          assert.match(
            yield* message(session.run({ x: filled(1), z: filled(1) })),
            /there is no input z \(inputs: x\)/,
          );
          assert.match(
            yield* message(session.run({ x: filled(1) }, { keep: ["noise"] })),
            /there is no output noise to keep \(outputs: y, s\)/,
          );
          assert.match(
            yield* message(session.run({ x: { dims: [N, N], data: new Float32Array(3) } })),
            /input x: 3 elements do not fill \[4, 4\]/,
          );
        })),
    );

    it("refuses a tensor that was disposed, or whose session has ended", PATIENT, () =>
      run(Effect.gen(function* () {
        const session = yield* open();
        const scope = yield* Scope.make();
        const short = yield* open().pipe(Scope.provide(scope));
        const { y } = yield* short.run({ x: filled(1) }, { keep: ["y"] });
        yield* Scope.close(scope, Exit.void);
        assert.match(yield* message(session.run({ x: y })), /disposed or belongs to another runtime/);
        assert.match(yield* message(toHost(y)), /disposed/);
        assert.match(yield* message(short.run({ x: filled(1) })), /the session has ended/);
      })));

    it("refuses a tensor of another runtime", PATIENT, () =>
      run(Effect.gen(function* () {
        const session = yield* open();
        const other = Context.get(yield* Layer.build(Layer.fresh(Runtime.layer(device))), Runtime);
        const theirs = yield* other.upload(filled(1));
        assert.equal(first(yield* toHost(theirs)), 1);
        assert.match(yield* message(session.run({ x: theirs })), /disposed or belongs to another runtime/);
      })));

    it("says that a model does not load, by the model's name", PATIENT, () =>
      run(Effect.gen(function* () {
        const runtime = yield* Runtime;
        const broken = { name: "broken", model: new Uint8Array([1, 2, 3]), external: [] };
        assert.match(yield* message(Effect.scoped(runtime.session(broken))), /^broken does not load: ./);
        const unknown = chain(["Frobnicate"], [N]);
        assert.match(yield* message(Effect.scoped(runtime.session(unknown))), /Frobnicate does not load: .*Frobnicate/);
      })));

    it("computes for all who ask at once", PATIENT, () =>
      run(Effect.gen(function* () {
        const sessions = yield* Effect.all([open(), open(N, 3), open(N, 4)], { concurrency: "unbounded" });
        const runs = sessions.flatMap((s: Session) => [1, 2, 3].map((v) => s.run({ x: filled(v) })));
        const got = (yield* Effect.all(runs, { concurrency: "unbounded" })).map((o) => first(o.y));
        assert.deepEqual(got, [3, 6, 9, 4, 8, 12, 5, 10, 15]);
      })));

    it("can be interrupted between runs and goes on working", PATIENT, () =>
      run(Effect.gen(function* () {
        const session = yield* open();
        const fiber = yield* Effect.forkChild(Effect.forever(session.run({ x: filled(1) })));
        yield* Effect.sleep("5 millis");
        yield* Fiber.interrupt(fiber);
        assert.equal(first((yield* session.run({ x: filled(1) })).y), 3);
      })));
  });

  describe(`element types on ${device}`, () => {
    it(`${types.join(", ")} go in and come out, also as kept tensors`, PATIENT, () =>
      run(Effect.gen(function* () {
        const session = yield* (yield* Runtime).session(eachType("Abs", types, [2]));
        const feeds = Object.fromEntries(types.map((type) => [type, { dims: [2], data: VALUES[type]() }]));
        const out = yield* session.run(feeds, { keep: types.map((type) => `${type} out`) });
        const again = yield* session.run(Object.fromEntries(types.map((type) => [type, out[`${type} out`]])));
        for (const type of types) {
          for (const o of [out, again]) {
            const { data } = yield* toHost(o[`${type} out`]);
            assert.deepEqual([...data].map(Number), [1, 2], type);
            assert.equal(data.constructor, VALUES[type]().constructor);
          }
        }
      })));

    it("a Uint8Array is a bool where a bool is wanted", PATIENT, () =>
      run(Effect.gen(function* () {
        const session = yield* (yield* Runtime).session(eachType("Not", ["bool"], [4]));
        const out = yield* session.run({ bool: { dims: [4], data: Uint8Array.of(1, 0, 0, 1) } });
        assert.deepEqual([...(yield* toHost(out["bool out"])).data].map(Number), [0, 1, 1, 0]);
      })));
  });
};
