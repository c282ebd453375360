/** Inside a worker: ONNX Runtime on one thread, doing what `wasm_pool.ts` asks for, one request after the other. */
import { parentPort } from "node:worker_threads";
import type { Held, Loaded } from "./engine.ts";
import { firstLine } from "./optional.ts";
import { ortEngine } from "./ort.ts";
import { pack, type Reply, type Request, sharedModel, transferables, unpack, type Wish } from "./wasm_messages.ts";

const start = async () => {
  const ort = await import("onnxruntime-web");
  ort.env.wasm.numThreads = 1;
  return ortEngine({ backend: "wasm", ort, options: { executionProviders: ["wasm"] } });
};
/** Begun when the worker is, so that the first request finds it compiled. */
const engine = start();
// Whoever asks is told; before that nobody needs to hear of it.
engine.catch(() => {});
const sessions = new Map<number, Loaded>();

const answer = async (wish: Wish): Promise<Reply["ok"]> => {
  const { load, wrap } = await engine;
  if (wish.do === "load") {
    const loaded = await load(sharedModel(wish.model));
    sessions.set(wish.session, loaded);
    return { inputs: [...loaded.inputs], outputs: [...loaded.outputs] };
  }
  const loaded = sessions.get(wish.session);
  if (loaded === undefined) throw new Error("the worker does not know this session");
  if (wish.do === "release") {
    sessions.delete(wish.session);
    await loaded.release();
    return {};
  }
  const feeds = new Map<string, Held>(wish.feeds.map(([name, t]) => [name, wrap(unpack(t), t.dtype)]));
  const results = await loaded.run(feeds);
  for (const feed of feeds.values()) feed.dispose();
  const packed = await Promise.all(
    [...results].map(async ([name, held]) => [name, pack(await held.read(), held.dtype)] as const),
  );
  for (const held of results.values()) held.dispose();
  return { results: packed };
};

let last: Promise<unknown> = Promise.resolve();
parentPort?.on("message", (request: Request) => {
  last = last.then(async () => {
    const reply: Reply = await answer(request.wish).then(
      (ok) => ({ id: request.id, ok }),
      (error) => ({ id: request.id, error: firstLine(error) }),
    );
    parentPort?.postMessage(reply, transferables(reply.ok?.results ?? []));
  });
});
