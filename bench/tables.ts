/**
 * Makes the bench's tables in README.md and docs anew from bench/results.json: `deno task bench:table`. With files, the
 * results.json of one or several `sau bench --out FOLDER`, it joins those into bench/results.json first. A test says where
 * the tables are stale.
 */
import { readFile, writeFile } from "node:fs/promises";
import process from "node:process";
import { PAGES, withTables } from "../src/bench/headline.ts";
import { mergeResults, readResults, writeResults } from "../src/bench/results.ts";

const at = (path: string) => new URL(`../${path}`, import.meta.url);
const read = async (file: string | URL) => readResults(await readFile(file, "utf8"));

const [first, ...others] = await Promise.all(process.argv.slice(2).map(read));
if (first !== undefined) await writeFile(at("bench/results.json"), writeResults(mergeResults([first, ...others])));
const { rows } = await read(at("bench/results.json"));
for (const path of PAGES) await writeFile(at(path), withTables(await readFile(at(path), "utf8"), rows));
