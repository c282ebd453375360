/** JSON Schema (draft 2020-12) of a pipeline file, with the steps' inputs and settings: editors complete and explain by it. */
import { Predicate, Schema } from "effect";
import type { AnyStep } from "../steps/step.ts";
import { describeSettings } from "./describe.ts";
import { PARAM_TYPES } from "./params.ts";
import { FORMAT } from "./spec.ts";

type Json = { readonly [key: string]: unknown };

/** A reference in the place of a setting, or of an input (which a pipeline that uses this one may give as a param). */
const reference = (place: "setting" | "input"): Json => ({
  type: "string",
  pattern: place === "setting" ? "\\$\\{\\{ *(params\\.|matrix\\.|item *\\})" : "^\\s*\\$\\{\\{ *(steps|params)\\.",
});

/** A list of values, or a parameter that holds one. */
const values = (description: string, examples: ReadonlyArray<unknown>): Json => ({
  description,
  examples,
  anyOf: [{ type: "array", minItems: 1 }, reference("setting")],
});

/** A parameter written at length. What is no such mapping is the parameter's value itself. */
const declaration: Json = {
  type: "object",
  required: ["type"],
  additionalProperties: false,
  properties: {
    type: {
      enum: Object.keys(PARAM_TYPES),
      description: "what the parameter holds; a path starts from this file's folder",
    },
    default: { description: "its value when nobody sets it; without one it must be given" },
    description: { type: "string", description: "what it is for" },
  },
};

const stepSchema = (step: AnyStep, definitions: Record<string, unknown>): Json => {
  const properties: Record<string, Json> = {};
  const required: string[] = [];
  for (const [name, port] of Object.entries(step.inputs)) {
    properties[name] = { ...reference("input"), description: `input (${port.kind}): ${port.description}` };
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
      anyOf: [own, reference("setting")],
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
      name: {
        type: "string",
        examples: ["Cure a known trigger"],
        description: "what the pipeline does, in a few words",
      },
      description: { type: "string" },
      params: {
        type: "object",
        propertyNames: name,
        additionalProperties: { anyOf: [declaration, {}] },
        examples: [{ steps: 12, trigger: { type: "string", default: "\u200b ", description: "the trigger's text" } }],
        description:
          "values that ${{ params.NAME }} stands for and --set NAME=VALUE changes; at length with type, default, description",
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
              description: "name of a step, a module's (with --allow-code), or another pipeline file",
              examples: ["./steps/my-step.ts#myStep", "./other.yaml"],
              oneOf: [
                ...steps.map((step) => ({ const: step.name, description: step.description })),
                { type: "string", pattern: "^\\.\\.?/.*\\.m?[jt]s#.", description: "a step of your own" },
                { type: "string", pattern: "^\\.\\.?/.*\\.(ya?ml|json)$", description: "another pipeline file" },
              ],
            },
            with: { type: "object", description: "settings, and inputs as ${{ steps.ID.OUTPUT }}" },
            if: {
              description: "whether the step runs; what cannot do without it is left out as well",
              examples: [false, "${{ params.verify }}", "${{ params.mode }} == full"],
              anyOf: [{ type: "boolean" }, reference("setting")],
            },
            matrix: {
              type: "object",
              propertyNames: name,
              description: "the step, and all that take from it, once for each combination of ${{ matrix.NAME }}",
              examples: [{ edge: [4, 8, 12] }],
              additionalProperties: values("the values of ${{ matrix.NAME }}", [[4, 8, 12]]),
            },
            foreach: values("the step, and all that take from it, once for each ${{ item }}", [["a", "b"]]),
          },
          allOf: cases,
        },
      },
      outputs: {
        type: "object",
        propertyNames: name,
        additionalProperties: reference("input"),
        examples: [{ cured: "${{ steps.cure.model }}" }],
        description: "what the pipeline hands back; without it the last cured model and the last verdict",
      },
    },
    ...(Object.keys(definitions).length === 0 ? {} : { $defs: definitions }),
  };
};
