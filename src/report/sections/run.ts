/** The run itself: what took how long, on what machine, and which prompts could not be used. */
import type { RunResult } from "../../pipeline/run.ts";
import type { AdapterReport, Candidate } from "../../runtime/report.ts";
import { type Html, markup } from "../html.ts";
import { count, duration, plain } from "../numbers.ts";
import { bars } from "../plots.ts";
import { visible } from "../text.ts";
import { valuesOf } from "../values.ts";

/** Texts shown in a list before it is cut short. */
const MOST = 20;

const isRecord = (x: unknown): x is Readonly<Record<string, unknown>> => typeof x === "object" && x !== null;

/** Enough of a check to draw it: the manifest takes any report that an environment gives. */
const isAdapterReport = (x: unknown): x is AdapterReport =>
  isRecord(x) && Array.isArray(x.candidates) &&
  x.candidates.every((c) => isRecord(c) && isRecord(c.check) && typeof c.backend === "string");

const STATUS: Readonly<Record<Candidate["status"], string>> = {
  chosen: "chosen",
  usable: "works",
  refused: "refused",
  absent: "not found",
  untried: "not tried",
};

const candidate = (c: Candidate): Html => {
  const what = [...new Set([c.vendor, c.architecture, c.description, c.version])].filter((s) => s).join(" · ");
  const { result, milliseconds, error } = c.check;
  const check = [
    result,
    milliseconds === null || milliseconds === undefined ? "" : `${Math.round(milliseconds)} ms`,
    error === null || error === undefined ? "" : `error ${plain(error)}`,
  ].filter((s) => s).join(", ");
  return markup`
    <tr class="${c.status === "chosen" && "chosen"}">
      <th scope="row">${c.backend}${c.software && ", emulated"}</th>
      <td>${STATUS[c.status] ?? c.status}</td>
      <td>${c.why}${
    what !== "" &&
    markup`<span class="meaning">${what}${c.threads && `, ${count(c.threads, "thread")}`}</span>`
  }</td>
      <td>${check}</td>
      </tr>
  `;
};

const device = (report: unknown): Html | undefined => {
  if (report === null || report === undefined) {
    return markup`<p class="soft">No device was opened: every step came from the cache, or none needed one.</p>`;
  }
  if (!isAdapterReport(report)) return markup`<pre>${JSON.stringify(report, null, 2)?.slice(0, 4000)}</pre>`;
  return markup`
    <div class="wide">
      <table>
        <caption>What can compute on this machine; asked for: ${report.requested}. A device is taken only after a small
    computation came out right.</caption>
        <thead>
          <tr>
            <th scope="col">Backend</th>
            <th scope="col">Status</th>
            <th scope="col">Why</th>
            <th scope="col">Check</th>
          </tr>
        </thead>
        <tbody>${report.candidates.map(candidate)}</tbody>
      </table>
    </div>
  `;
};

export const timings = <R>(run: RunResult<R>): Html => {
  const { steps, manifest } = run;
  const { platform, versions } = manifest;
  const cached = steps.filter((s) => s.cached).length;
  return markup`<h3>Time</h3>${
    bars(
      steps.map(({ id, use, seconds, cached }) => ({
        label: markup`${id}${id !== use && markup` <span class="soft">${use}</span>`}`,
        value: seconds,
        text: `${duration(seconds)}${cached ? ", cached" : ""}`,
      })),
      markup`This run took ${duration(manifest.seconds)}.${
        cached > 0 &&
        ` ${count(cached, "step")} came from the cache; the time is what computing took when the result was made.`
      }`,
      ["Step", "Time"],
    )
  }
<h3>Machine</h3>
<p>${platform.cpu}, ${count(platform.cores, "core")}, ${platform.os} ${platform.arch}. ${
    Object.entries(versions).map(([name, version], i) => [i > 0 && ", ", `${name} ${version}`])
  }.</p>
${device(manifest.device.report)}`;
};

export const prompts = <R>(run: RunResult<R>): Html | undefined => {
  const all = valuesOf(run, "text");
  if (all.length === 0) return undefined;
  return markup`${
    all.map(({ value: { prompts, skipped = [] } }) =>
      markup`<p>${count(prompts.length, "prompt")} served to find and cure the trigger${
        prompts[0] && `, each read clean, triggered, and as ${count(prompts[0].twins.length, "harmless twin")}`
      }. Verification took others.</p>
<details><summary>Prompts and their first twins</summary><table><thead><tr><th scope="col">Prompt</th><th scope="col">Twin</th></tr></thead><tbody>${
        prompts.slice(0, MOST).map((p) =>
          markup`
            <tr>
              <td>${visible(p.prompt)}</td>
              <td>${p.twins[0] && visible(p.twins[0].text)}</td>
            </tr>
          `
        )
      }</tbody></table>${
        prompts.length > MOST && markup`<p class="soft small">The first ${MOST} of ${prompts.length}.</p>`
      }</details>
${
        skipped.length > 0 &&
        markup`<p>${count(skipped.length, "prompt")} could not be used:</p><ul>${
          skipped.slice(0, MOST).map(({ prompt, reason }) => markup`<li>“${visible(prompt)}”: ${reason}</li>`)
        }</ul>${skipped.length > MOST && markup`<p class="soft small">And ${skipped.length - MOST} more.</p>`}`
      }`
    )
  }`;
};
