/**
 * What steps run in: the device and the services that their programs need. Opened only when a step really runs, so
 * that a run from the cache, a plan or a list of steps never waits for a device.
 */
import { type Context, Effect, Layer, Scope } from "effect";

export interface Environment<R> {
  /** Kind of device that computes; part of every cache key, since different kinds round differently. */
  readonly kind: Effect.Effect<string, unknown>;
  /** How many steps are worth running side by side; one where it is not said. Asked when a step is to run. */
  readonly lanes?: Effect.Effect<number, unknown>;
  /** Makes the services ready; a missing device fails here. */
  readonly open: Effect.Effect<void, unknown>;
  /** What the runtime says about the device; null when nothing was opened. Plain JSON, for the manifest. */
  readonly report: Effect.Effect<unknown>;
  /** Gives a step's program its services, and a scope that ends with it. */
  readonly provide: <A>(program: Effect.Effect<A, unknown, R>) => Effect.Effect<A, unknown>;
}

/** For steps that need no services. */
export const noServices = (kind = "none"): Environment<Scope.Scope> => ({
  kind: Effect.succeed(kind),
  open: Effect.void,
  report: Effect.succeed(null),
  provide: (program) => Effect.scoped(program),
});

/**
 * An environment over a layer, built at most once and kept until the surrounding scope ends.
 * `kind` is the kind of device if it is known before anything is opened, else how to tell it from the services.
 */
export const layerEnvironment = <R>(
  layer: Layer.Layer<R, unknown>,
  options: {
    readonly kind: string | ((services: Context.Context<R>) => string);
    /** How many steps are worth running side by side, by the services; one where it is not said. */
    readonly lanes?: (services: Context.Context<R>) => number;
    readonly report: (services: Context.Context<R>) => unknown;
  },
): Effect.Effect<Environment<R | Scope.Scope>, never, Scope.Scope> =>
  Effect.gen(function* () {
    const scope = yield* Scope.Scope;
    let report: unknown = null;
    const services = yield* Effect.cached(
      Layer.buildWithScope(layer, scope).pipe(
        Effect.tap((built) => Effect.sync(() => void (report = options.report(built)))),
      ),
    );
    const { kind, lanes = () => 1 } = options;
    return {
      kind: typeof kind === "string" ? Effect.succeed(kind) : Effect.map(services, kind),
      lanes: Effect.map(services, lanes),
      open: Effect.asVoid(services),
      report: Effect.sync(() => report),
      provide: <A>(program: Effect.Effect<A, unknown, R | Scope.Scope>): Effect.Effect<A, unknown> =>
        Effect.flatMap(services, (built) =>
          Effect.scopedWith((inner) =>
            // `R | Scope` is all that the program may need, and both are given here; TypeScript cannot subtract
            // a type parameter from itself.
            program.pipe(Scope.provide(inner), Effect.provideContext(built)) as Effect.Effect<A, unknown>
          )),
    };
  });
