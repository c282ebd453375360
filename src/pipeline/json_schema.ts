/** JSON Schema (draft 2020-12) of a pipeline file, with the steps' inputs and settings: editors complete and explain by it. */
import { Predicate, Schema } from "effect";
import type { AnyStep } from "../steps/step.ts";
import { describeSettings } from "./describe.ts";
import { FORMAT } from "./spec.ts";

type Json = { readonly [key: string]: unknown };

const reference = (what: string): Json => ({
  type: "string",
  pattern: what === "param" ? "^\\$\\{\\{ *params\\." : "^\\$\\{\\{ *steps\\.",
});

const stepSchema = (step: AnyStep, definitions: Record<string, unknown>): Json => {
  const properties: Record<string, Json> = {};
  const required: string[] = [];
  for (const [name, port] of Object.entries(step.inputs)) {
    properties[name] = { ...reference("step"), description: `input (${port.kind}): ${port.description}` };
    if (!port.optional) required.push(name);
  }
  const document = Schema.toJsonSchemaDocument(step.settings);
  Object.assign(definitions, document.definitions);
  const generated = Predicate.isObject(document.schema.properties) ? document.schema.properties : {};
  for (const { name, type, description, fallback, required: needed } of describeSettings(step.settings)) {
    const own = Object.hasOwn(generated, name) ? Reflect.get(generated, name) : {};
    properties[name] = {
      // A file's default path is spelled from its folder; the absolute one of this machine would mislead.
      ...(fallback === undefined || type === "a path" ? {} : { default: fallback }),
      description: description === "" ? type : description,
      anyOf: [own, reference("param")],
    };
    if (needed) required.push(name);
  }
  return { type: "object", properties, required, additionalProperties: false };
};

export const pipelineSchema = (steps: ReadonlyArray<AnyStep>): Json => {
  const definitions: Record<string, unknown> = {};
  const cases = steps.map((step) => {
    const settings = stepSchema(step, definitions);
    const needed = Array.isArray(settings.required) && settings.required.length > 0;
    return {
      if: { properties: { use: { const: step.name } }, required: ["use"] },
      then: {
        description: step.description,
        properties: { with: settings },
        ...(needed ? { required: ["use", "with"] } : {}),
      },
    };
  });
  const name = { pattern: "^[A-Za-z_][A-Za-z0-9_-]*$" };
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: "A sau pipeline",
    type: "object",
    required: ["sau", "name", "steps"],
    additionalProperties: false,
    properties: {
      $schema: { type: "string" },
      sau: { const: FORMAT, description: "version of the format" },
      name: { type: "string", description: "what the pipeline does, in a few words" },
      description: { type: "string" },
      params: {
        type: "object",
        propertyNames: name,
        description: "values that ${{ params.NAME }} stands for and --set NAME=VALUE changes",
      },
      steps: {
        type: "object",
        minProperties: 1,
        propertyNames: name,
        additionalProperties: {
          type: "object",
          required: ["use"],
          additionalProperties: false,
          properties: {
            use: {
              description: "name of a step",
              oneOf: steps.map((step) => ({ const: step.name, description: step.description })),
            },
            with: { type: "object" },
          },
          allOf: cases,
        },
      },
      outputs: {
        type: "object",
        propertyNames: name,
        additionalProperties: reference("step"),
        description: "what the pipeline hands back; without it the last cured model and the last verdict",
      },
    },
    ...(Object.keys(definitions).length === 0 ? {} : { $defs: definitions }),
  };
};
