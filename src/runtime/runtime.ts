/**
 * The service through which everything computes: models in, tensors out, on WebGPU, native code or WebAssembly.
 *
 *     const program = Effect.gen(function* () {
 *       const runtime = yield* Runtime;
 *       const unet = yield* runtime.session({ name: "unet", model, external });
 *       const { noise } = yield* unet.run({ sample, timestep, context });
 *     });
 *     program.pipe(Effect.scoped, Effect.provide(Runtime.layer("auto")));
 */
import { Context, Effect, Layer } from "effect";
import { choose, type ChooseOptions } from "./choose.ts";
import { formatReport, noHalves } from "./doctor.ts";
import { type AdapterReport, type Device, RuntimeUnavailable } from "./report.ts";
import { makeSessions, type Sessions } from "./session.ts";

export class Runtime extends Context.Service<
  Runtime,
  Sessions & {
    /** What was found and chosen, and why. */
    readonly report: AdapterReport;
  }
>()("sau/Runtime") {
  /** The device by name. Fails with the report when nothing that was asked for works. */
  static readonly layer = (
    device: Device = "auto",
    options: ChooseOptions = {},
  ): Layer.Layer<Runtime, RuntimeUnavailable> =>
    Layer.effect(
      Runtime,
      Effect.gen(function* () {
        const { engine, report } = yield* choose(device, options);
        if (engine === undefined) {
          const message = `No device computes (asked for: ${device}).\n${formatReport(report)}`;
          return yield* new RuntimeUnavailable({ message, report });
        }
        if (report.precision.chosen === null) {
          return yield* new RuntimeUnavailable({ message: noHalves(report), report });
        }
        return Runtime.of({ report, ...makeSessions(engine) });
      }),
    );
}

/** Looks at every way of computing on this machine, and at which of them `device` would take. Never fails: for `sau doctor`. */
export const diagnose = (device: Device = "auto", options: ChooseOptions = {}): Effect.Effect<AdapterReport> =>
  choose(device, { ...options, everything: true }).pipe(Effect.map(({ report }) => report), Effect.scoped);
