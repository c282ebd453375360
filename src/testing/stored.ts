/** Values of any port compared as they would lie in the cache: JSON beside tensors. */
import type { Port, Stored } from "../steps/port.ts";
import { assertSame } from "./fields.ts";

const compareJson = (actual: unknown, expected: unknown, tolerance: number, at: string): void => {
  if (typeof actual === "number" && typeof expected === "number") {
    const apart = Math.abs(actual - expected);
    if (Object.is(actual, expected) || apart <= tolerance * (1 + Math.abs(expected))) return;
    throw new Error(`${at} is ${actual}, expected ${expected}`);
  }
  const container = typeof actual === "object" && actual !== null && typeof expected === "object" && expected !== null;
  if (!container) {
    if (actual !== expected) {
      throw new Error(`${at} is ${JSON.stringify(actual)}, expected ${JSON.stringify(expected)}`);
    }
    return;
  }
  const [a, b] = [new Map(Object.entries(actual)), new Map(Object.entries(expected))];
  const keys = [...new Set([...a.keys(), ...b.keys()])];
  for (const key of keys) {
    if (a.has(key) !== b.has(key)) {
      throw new Error(`${at}.${key} is ${a.has(key) ? "there and should not be" : "missing"}`);
    }
    compareJson(a.get(key), b.get(key), tolerance, `${at}.${key}`);
  }
};

/** @throws Error at the first difference: which value, where, by how much */
export const compareStored = (actual: Stored, expected: Stored, tolerance: number, what: string): void => {
  // What JSON leaves out (undefined) is not there.
  const plain = (json: unknown): unknown => json === undefined ? undefined : JSON.parse(JSON.stringify(json));
  compareJson(plain(actual.json), plain(expected.json), tolerance, what);
  const names = [...new Set([...Object.keys(actual.tensors), ...Object.keys(expected.tensors)])];
  for (const name of names) {
    const [a, b] = [actual.tensors[name], expected.tensors[name]];
    if (a === undefined || b === undefined) throw new Error(`${what}: tensor ${name} is there only once`);
    assertSame(a, b, tolerance, `${what}: ${name}`);
  }
};

/** A copy of the value in its stored form, which later changes of the value do not reach. */
export const snapshot = <A>(port: Port<A>, value: A): Stored => {
  const { json, tensors } = port.encode(value);
  return {
    json: json === undefined ? undefined : JSON.parse(JSON.stringify(json)),
    tensors: Object.fromEntries(
      Object.entries(tensors).map(([name, { dims, data }]) => [name, { dims: [...dims], data: data.slice() }]),
    ),
  };
};
