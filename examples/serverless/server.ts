/**
 * A server of fetch handlers: `deno serve -A --port 8080 server.ts`, or `bun server.ts`. What it may do comes from the
 * environment, as container platforms hand it over.
 */
import process from "node:process";
import { createHandler } from "../../mod.ts";

const list = (text: string | undefined): string[] =>
  (text ?? "").split(",").map((t) => t.trim()).filter((t) => t !== "");
const { PORT, SAU_DATA = "/data", SAU_ROOTS = "/models", SAU_PIPELINES, SAU_TOKENS, SAU_ANONYMOUS, SAU_HUB_MODELS } =
  process.env;

const handler = createHandler({
  data: SAU_DATA,
  roots: list(SAU_ROOTS),
  pipelines: list(SAU_PIPELINES ?? new URL("../../pipelines", import.meta.url).pathname),
  // Without tokens it answers on loopback names only, whatever it listens on, unless whoever stands before it asks for
  // a key of their own and the owner says so.
  tokens: list(SAU_TOKENS),
  anonymous: SAU_ANONYMOUS === "anyone" ? "anyone" : "loopback",
  hub: { allow: list(SAU_HUB_MODELS) },
});

process.on("SIGTERM", async () => {
  await handler.drain();
  await handler.dispose();
  process.exit(143);
});

// Bun reads the port from here; `deno serve` takes --port. Streams may be silent for longer than Bun's ten seconds.
export default { port: Number(PORT) || 8080, idleTimeout: 255, fetch: handler.fetch };
