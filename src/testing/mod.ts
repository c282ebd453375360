/** "sau/testing": what you need to test a mask or a step of your own. */
export { default as fc } from "fast-check";
export * from "./arbitraries.ts";
export * from "./laws.ts";
