/** How to do the run again, and what it was made of. */
import type { RunResult } from "../../pipeline/run.ts";
import { type Content, type Html, markup } from "../html.ts";
import { visible } from "../text.ts";
import { valuesOf } from "../values.ts";

const isRecord = (x: unknown): x is Readonly<Record<string, unknown>> => typeof x === "object" && x !== null;

const hash = (text: string): Html =>
  markup`<code title="${text}">${text.length > 16 ? `${text.slice(0, 16)}…` : text}</code>`;

const seeds = <R>(run: RunResult<R>): Content => {
  const own = run.steps.flatMap(({ id, settings }) =>
    isRecord(settings) && (typeof settings.seed === "number" || typeof settings.seed === "string")
      ? [`${id} ${settings.seed}`]
      : []
  );
  return own.length > 0 &&
    markup`<p>Every random number derives from the step's seed: ${
      own.join(", ")
    }. The same command on the same kind of device gives the
same result.</p>`;
};

const files = <R>(run: RunResult<R>): Html | undefined => {
  const read = new Map(run.manifest.steps.flatMap(({ files }) => Object.entries(files)));
  const parts = new Map(valuesOf(run, "text").flatMap(({ value }) => [...(value.model.bundle.hashes ?? [])]));
  if (read.size + parts.size === 0) return undefined;
  const rows = (of: ReadonlyMap<string, string>) =>
    [...of].map(([name, value]) =>
      markup`
        <tr>
          <td><code>${name}</code></td>
          <td>${hash(value)}</td>
        </tr>
      `
    );
  return markup`
    <h3>Inputs</h3><table>
      <caption>SHA-256 of what was read, shortened here; in full in manifest.json.</caption>
      <thead>
        <tr>
          <th scope="col">File or folder</th>
          <th scope="col">SHA-256</th>
        </tr>
      </thead>
      <tbody>${rows(read)}</tbody>
    </table>
    ${
    parts.size > 0 &&
    markup`
        <details>
          <summary>Files of the model</summary>
          <table>
            <thead>
              <tr>
                <th scope="col">File</th>
                <th scope="col">SHA-256</th>
              </tr>
            </thead>
            <tbody>${rows(parts)}</tbody>
          </table>
        </details>
      `
  }
  `;
};

const notes = <R>(run: RunResult<R>): Html | undefined => {
  const all = [
    ...new Set([
      ...valuesOf(run, "text").flatMap(({ value }) => value.model.bundle.notes ?? []),
      ...valuesOf(run, "scan").flatMap(({ value }) => value.notes ?? []),
      ...run.manifest.notes ?? [],
    ]),
  ];
  return all.length === 0 ? undefined : markup`
    <h3>Notes on the model</h3>
    <ul>${all.map((note) => markup`<li>${note}</li>`)}</ul>
  `;
};

export const reproduce = <R>(run: RunResult<R>): Html => {
  const { command, pipeline, steps } = run.manifest;
  const changed = Object.entries(pipeline.params);
  return markup`
    <p>From the same folder:</p>
    <pre>${visible(command)}</pre>
    ${seeds(run)}
    <h3>Pipeline</h3>
    <pre>${visible(pipeline.text)}</pre>
    <p class="soft small">SHA-256 ${hash(pipeline.sha256)}${
    pipeline.overrides.length > 0 &&
    [
      "; changed for this run: ",
      pipeline.overrides.map((o, i) => [i > 0 && ", ", markup`<code>${visible(o)}</code>`]),
    ]
  }.</p>
    ${
    changed.length > 0 &&
    markup`
        <table>
          <caption>Parameters of this run</caption>
          <thead>
            <tr>
              <th scope="col">Name</th>
              <th scope="col">Value</th>
            </tr>
          </thead>
          <tbody>${
      changed.map(([name, value]) =>
        markup`
              <tr>
                <th scope="row">${name}</th>
                <td><code>${visible(JSON.stringify(value) ?? "")}</code></td>
              </tr>
            `
      )
    }</tbody>
        </table>
      `
  }
    ${files(run)}
    ${notes(run)}
    <details>
      <summary>Keys of the steps</summary>
      <table>
        <caption>A key is the hash of all that a step's result depends on.</caption>
        <thead>
          <tr>
            <th scope="col">Step</th>
            <th scope="col">Version</th>
            <th scope="col">Key</th>
          </tr>
        </thead>
        <tbody>${
    steps.map(({ id, use, version, key }) =>
      markup`
            <tr>
              <th scope="row">${id}</th>
              <td>${use} ${version}</td>
              <td>${hash(key)}</td>
            </tr>
          `
    )
  }</tbody>
      </table>
    </details>
  `;
};
