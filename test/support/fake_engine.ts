/** Engines and backends that never touch ONNX Runtime: for choosing a device, and for devices that lie or hang. */
import { Effect } from "effect";
import type { Backend, Found } from "../../src/runtime/backend.ts";
import { Missing } from "../../src/runtime/backend.ts";
import type { BackendName, Engine, Held, HostTensor } from "../../src/runtime/engine.ts";
import { wasm } from "../../src/runtime/wasm.ts";

/** What became of the engines that a fake backend opened. */
export interface Log {
  opened: string[];
  closed: string[];
}

const facts = (name: BackendName): Omit<Found, "open"> => ({
  vendor: "test",
  architecture: "",
  description: `a fake ${name}`,
  software: false,
  threads: null,
  limits: null,
  version: "fake 1",
});

/** A backend that is not there. */
export const absent = (name: BackendName): Backend => ({
  name,
  find: () => Effect.fail(new Missing({ reason: `no ${name} here`, advice: [`install ${name}`] })),
});

/** A backend over wasm whose results pass through `change` before anybody sees them. */
export const changed = (
  name: BackendName,
  log: Log,
  change: (result: HostTensor) => HostTensor | Promise<HostTensor> = (t) => t,
  more: Partial<Found> = {},
): Backend => ({
  name,
  find: (options) =>
    wasm.find(options).pipe(Effect.map((real) => ({
      ...facts(name),
      open: Effect.acquireRelease(
        real.open.pipe(Effect.map((engine) => {
          log.opened.push(name);
          return lying({ ...engine, backend: name }, change);
        })),
        () => Effect.sync(() => void log.closed.push(name)),
      ),
      ...more,
    }))),
});

const lying = (engine: Engine, change: (result: HostTensor) => HostTensor | Promise<HostTensor>): Engine => ({
  ...engine,
  load: async (model) => {
    const loaded = await engine.load(model);
    return {
      ...loaded,
      run: async (feeds) => {
        const outputs = await loaded.run(feeds);
        for (const held of outputs.values()) {
          const { read } = held;
          const told: Pick<Held, "read"> = { read: async () => change(await read()) };
          Object.assign(held, told);
        }
        return outputs;
      },
    };
  },
});

/** Results times a factor. */
export const scaled = (factor: number) => ({ dims, data }: HostTensor): HostTensor => ({
  dims,
  data: Float32Array.from({ length: data.length }, (_, i) => Number(data[i]) * factor),
});
