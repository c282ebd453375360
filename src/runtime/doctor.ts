/** The adapter report as text, for `sau doctor` and for errors. */
import type { AdapterReport, Candidate } from "./report.ts";

const STATUS: Record<Candidate["status"], string> = {
  chosen: "chosen",
  usable: "works",
  refused: "refused",
  absent: "not found",
  untried: "not tried",
};

export const formatReport = (report: AdapterReport): string => {
  const { host, chosen, requested } = report;
  const taken = report.candidates.find((c) => c.status === "chosen");
  const threads = taken?.threads == null ? "" : `, ${taken.threads} thread${taken.threads === 1 ? "" : "s"}`;
  return [
    `Device    ${chosen === null ? "none" : `${chosen}${threads}`} (asked for: ${requested})`,
    `Machine   ${host.cpu}, ${host.cores} cores, ${gib(host.memory.total)} memory (${
      gib(host.memory.free)
    } free), ${host.platform}`,
    ...(chosen === null ? [] : [`Precision ${precisionText(report.precision)}`]),
    `Runtime   ${host.runtime}`,
    "",
    ...report.candidates.flatMap(formatCandidate),
  ].join("\n");
};

/** Half precision was asked for and is not to be had. */
export const noHalves = ({ chosen, precision }: AdapterReport): string =>
  `Half precision was asked for and cannot be had on ${chosen}: ${precision.why}. ` +
  "Leave --precision at auto, or set it to float32.";

const precisionText = ({ requested, chosen, why, error }: AdapterReport["precision"]): string =>
  `${chosen ?? "none"} (asked for: ${requested}): ${why}${
    chosen === "float16" && error !== null ? `; its check is off by ${error.toExponential(1)}` : ""
  }`;

const formatCandidate = (c: Candidate): string[] => {
  const names = [...new Set([c.vendor, c.architecture, c.description])].filter((s) => s !== "").join(" · ");
  const check = c.check.result === "not run" ? [] : [
    `${c.check.result}${c.check.milliseconds === null ? "" : ` in ${Math.round(c.check.milliseconds)} ms`}${
      c.check.error === null ? "" : `, largest error ${c.check.error.toExponential(1)}`
    }`,
  ];
  const line = (label: string, text: string) => `            ${label.padEnd(11)}${text}`;
  return [
    `${c.backend.padEnd(9)} ${STATUS[c.status]}${c.why === "" ? "" : `: ${c.why}`}`,
    ...(names === "" ? [] : [line("is", names)]),
    ...(c.version === "" ? [] : [line("through", `${c.version}${c.threads === null ? "" : `, ${c.threads} threads`}`)]),
    ...check.map((text) => line("self-check", text)),
    ...(c.limits === null ? [] : [
      line(
        "limits",
        `buffer ${mib(c.limits.maxBufferSize)}, storage binding ${mib(c.limits.maxStorageBufferBindingSize)}`,
      ),
    ]),
    ...c.advice.map((text) => line("try", text)),
  ];
};

const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
const mib = (bytes: number): string => `${Math.round(bytes / 2 ** 20)} MiB`;
