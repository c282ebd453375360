/** "sau/testing": what you need to test a mask or a step of your own. */
export * from "./arbitraries.ts";
export * from "./laws.ts";
