/**
 * Which constant of an ONNX graph is which tensor of a network. Exporters keep the names of some weights, and fold others into
 * constants without a name (`onnx::MatMul_1234`, a matrix turned over; `onnx::Mul_12`, a norm's scale with axes added), and of equal
 * ones keep one. What tells them is who uses them: every node knows the module that it was traced in.
 */
import { sameTensorName } from "../keys.ts";
import { type Constant, type Node, OnnxError, type OnnxModel } from "./model.ts";

/** A tensor of the network among the constants of a graph. */
export interface Placed {
  readonly constant: Constant;
  /** As the network has it. */
  readonly dims: readonly number[];
  /** Whether the constant is that matrix turned over. */
  readonly transposed: boolean;
}

export interface Places {
  /** By the names that the network gives its tensors. */
  readonly placed: ReadonlyMap<string, Placed>;
  /** Weights that nodes take and that the network does not have, or not so: what they are and where. */
  readonly strange: readonly string[];
}

/** How often a value is turned over on the way from the constant that it is. */
interface Value {
  readonly constant: Constant;
  readonly turned: boolean;
}

/** What a node's input is to its module. */
interface Role {
  readonly input: number;
  readonly names: readonly string[];
  /** A matrix that stands the other way round than Linear has it. */
  readonly turned?: boolean;
  /** Nothing but a weight belongs here. */
  readonly always?: boolean;
}

const weight = { input: 1, names: ["weight"], always: true };
const bias = { input: 2, names: ["bias"], always: true };
// A text encoder's positions are a constant sum where the length of texts is fixed.
const added = ["bias", "position_embedding.weight"];

/** InstanceNormalization is not here: GroupNorm becomes one with scale 1 and bias 0, and its own follow as Mul and Add. */
const rolesOf = ({ type, transB }: Node): readonly Role[] => {
  switch (type) {
    case "Conv":
    case "LayerNormalization":
    case "GroupNormalization":
      return [weight, bias];
    case "Gemm":
      return [{ ...weight, turned: !transB }, bias];
    case "MatMul":
      return [{ ...weight, turned: true }];
    case "Gather":
      return [{ input: 0, names: ["weight"] }];
    case "Mul":
      return [{ input: 0, names: ["weight"] }, { input: 1, names: ["weight"] }];
    case "Add":
      return [{ input: 0, names: added }, { input: 1, names: added }];
    default:
      return [];
  }
};

const QUANTISED = /^(DequantizeLinear|QuantizeLinear|DynamicQuantizeLinear|MatMulInteger|ConvInteger|QLinear\w+)$/;

/** Graphs whose constants are no longer a network's weights. @throws OnnxError */
const checkWhole = (nodes: readonly Node[]): void => {
  for (const { type, domain, module } of nodes) {
    const where = module === undefined || module === "" ? "" : ` in ${module}`;
    if (QUANTISED.test(type)) {
      throw new OnnxError(`is quantised: it has a ${type}${where}, and no weights as they were`);
    }
    if (domain !== "" && domain !== "ai.onnx" && domain !== "pkg.onnxscript.torch_lib") {
      throw new OnnxError(
        `was optimised for one program: it has a ${type} of ${domain}${where}, which holds several weights as one`,
      );
    }
  }
};

/** Operations that leave the values of a tensor as they are. */
const PASSING = new Set(["Identity", "Reshape", "Unsqueeze", "Squeeze", "Cast", "Transpose"]);
const MOST_STEPS = 16;

/** Finds the constant that a value is, however it was reshaped on the way. */
const valuesOf = ({ constants, nodes }: OnnxModel) => {
  const makers = new Map<string, Node>();
  for (const node of nodes) if (PASSING.has(node.type)) makers.set(node.outputs[0] ?? "", node);
  return (name: string): Value | undefined => {
    let turned = false;
    for (let at = name, steps = 0; steps < MOST_STEPS; steps++) {
      const constant = constants.get(at);
      if (constant !== undefined) return { constant, turned };
      const maker = makers.get(at);
      if (maker === undefined) return undefined;
      if (maker.type === "Transpose") {
        // Of more axes than two it would be a reordering that no file has.
        if (maker.perm !== undefined && maker.perm.join() !== "1,0") return undefined;
        turned = !turned;
      }
      at = maker.inputs[0] ?? "";
    }
    return undefined;
  };
};

const isFloat = ({ dtype }: Constant): boolean => dtype !== undefined && /^(F|BF)/.test(dtype);

/** The constant as a tensor of these dims, or undefined where it is none. */
const asTensor = ({ constant, turned }: Value, dims: readonly number[]): Placed | undefined => {
  if (!isFloat(constant)) return undefined;
  const own = constant.dims.filter((d) => d !== 1);
  const wanted = dims.filter((d) => d !== 1);
  // A matrix of one row or column is the same either way.
  const flip = turned && wanted.length === 2 && dims.length === 2;
  if (turned && dims.length !== 2) return undefined;
  if ((flip ? own.toReversed() : own).join() !== wanted.join()) return undefined;
  return { constant, dims, transposed: flip };
};

/** Module paths begin with the names of what was wrapped around the network to export it: `vae.decoder.conv_in`. */
const MOST_WRAPPERS = 2;

/** The network's name for a tensor of a module, however the exporter's class called its own. */
const namer = (expected: ReadonlyMap<string, readonly number[]>) => {
  const names = new Map([...expected.keys()].map((name) => [sameTensorName(name), name]));
  return (key: string): string | undefined => {
    for (let rest = key, n = 0; n <= MOST_WRAPPERS; n++) {
      const found = names.get(sameTensorName(rest));
      if (found !== undefined) return found;
      const dot = rest.indexOf(".");
      if (dot < 0) return undefined;
      rest = rest.slice(dot + 1);
    }
    return undefined;
  };
};

const show = ({ name, dims }: Constant): string => `${name.slice(0, 120)} [${dims.join(", ")}]`;

/**
 * Places the constants of one graph.
 * @param expected dims of the network's tensors by name; a graph may hold some of them only
 * @throws OnnxError where the graph was rewritten, or where two constants claim to be one tensor
 */
export const placesIn = (model: OnnxModel, expected: ReadonlyMap<string, readonly number[]>): Places => {
  checkWhole(model.nodes);
  const nameOf = namer(expected);
  const valueOf = valuesOf(model);
  const placed = new Map<string, Placed>();
  const strange = new Map<string, string>();
  const used = new Set<Constant>();
  const put = (name: string, tensor: Placed) => {
    const earlier = placed.get(name);
    if (earlier !== undefined && earlier.constant !== tensor.constant) {
      throw new OnnxError(
        `holds two tensors that could be ${name}: ${show(earlier.constant)} and ${show(tensor.constant)}`,
        name,
      );
    }
    placed.set(name, tensor);
    used.add(tensor.constant);
  };
  for (const node of model.nodes) {
    for (const { input, names, turned = false, always = false } of rolesOf(node)) {
      const found = valueOf(node.inputs[input] ?? "");
      if (found === undefined) continue;
      const value = { ...found, turned: found.turned !== turned };
      const { constant } = value;
      const keys = node.module === undefined
        ? []
        : names.map((name) => nameOf(node.module === "" ? name : `${node.module}.${name}`));
      const key = keys.find((name) => name !== undefined && asTensor(value, expected.get(name) ?? []) !== undefined);
      const tensor = key === undefined ? undefined : asTensor(value, expected.get(key) ?? []);
      if (key !== undefined && tensor !== undefined) put(key, tensor);
      else if (always || (node.type === "Gather" && isFloat(constant) && constant.dims.length > 1)) {
        strange.set(
          constant.name,
          `${show(constant)}, which a ${node.type} in ${node.module ?? "no named module"} takes`,
        );
      }
    }
  }
  // Where no node says whose they are, by the names that they kept.
  for (const constant of model.constants.values()) {
    const name = nameOf(constant.name);
    if (name === undefined || placed.has(name)) continue;
    const tensor = asTensor({ constant, turned: false }, expected.get(name) ?? []);
    if (tensor === undefined) {
      strange.set(constant.name, `${show(constant)}, expected [${expected.get(name)?.join(", ")}]`);
    } else put(name, tensor);
  }
  for (const { name } of used) strange.delete(name);
  return { placed, strange: [...strange.values()] };
};
