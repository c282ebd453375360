import { Effect } from "effect";
import { denoise, encode, loadSpec, locate, pipeline } from "sau";

const p = pipeline("Where it acts");
const { text } = p.step("text", encode, { model: "model", trigger: "\u200b ", prompts: "prompts.txt" });
const { capture } = p.step("pairs", denoise, { text, steps: 20 });
p.output("field", p.step("where", locate, { text, capture }).field);
const linked = await Effect.runPromise(loadSpec(p.spec, { steps: [encode, denoise, locate] }));
