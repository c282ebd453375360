/**
 * report.html: one file that says whether the trigger is gone, shows where it acted, and holds all it takes to check
 * that. It loads nothing and runs nothing; every text in it is escaped.
 */
import type { RunResult } from "../pipeline/run.ts";
import { guarded, page, type Section } from "./page.ts";
import { cure } from "./sections/cure.ts";
import { figures } from "./sections/figures.ts";
import { network } from "./sections/network.ts";
import { others } from "./sections/others.ts";
import { pictures } from "./sections/pictures.ts";
import { reproduce } from "./sections/reproduce.ts";
import { prompts, timings } from "./sections/run.ts";
import { scan } from "./sections/scan.ts";
import { screen } from "./sections/screen.ts";
import { verdictHead } from "./sections/verdict.ts";
import { where } from "./sections/where.ts";
import { valuesOf } from "./values.ts";

/**
 * The page of a run. What it shows follows from the kinds of values that the steps gave, so any pipeline has a report;
 * a part that cannot be drawn says so in its place and leaves the rest alone.
 */
export const renderReport = <R>(run: RunResult<R>): string => {
  const sections: readonly Section[] = [
    { id: "scan", title: "What stands out", body: () => scan(run) },
    { id: "screen", title: "Which prompts stand out", body: () => screen(run) },
    { id: "pictures", title: "Pictures", body: () => pictures(run) },
    { id: "figures", title: "Figures", body: () => figures(run) },
    { id: "where", title: "Where it acts", body: () => where(run) },
    { id: "network", title: "What sets it off", body: () => network(run) },
    { id: "cure", title: "The cure", body: () => cure(run) },
    { id: "others", title: "Other results", body: () => others(run) },
    { id: "prompts", title: "Prompts", body: () => prompts(run) },
    { id: "run", title: "The run", body: () => timings(run) },
    { id: "reproduce", title: "Do it again", body: () => reproduce(run) },
  ];
  const { passed } = valuesOf(run, "verdict").at(-1)?.value ?? {};
  const result = passed === undefined ? "" : passed ? "Passed: " : "Failed: ";
  return page(`${result}${run.pipeline.name} · sau`, guarded(() => verdictHead(run)), sections);
};
