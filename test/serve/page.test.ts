import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { chromium, openPage } from "../support/browser.ts";
import { events, one, serve, type Server, until } from "./support.ts";

describe("the page at /", () => {
  let server: Server;
  let folder: string;
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "sau-page-"));
    writeFileSync(
      join(folder, "hold.yaml"),
      'sau: 1\nname: Holds\nparams: { label: "<img src=x onerror=alert(1)>" }\nsteps:\n' +
        '  first: { use: say, with: { what: "${{ params.label }}" } }\n  then: { use: wait, with: { label: "${{ params.label }}" } }\n' +
        'outputs: { words: "${{ steps.then.words }}" }\n',
    );
    server = await serve({ pipelines: [folder] });
  });
  after(async () => {
    await server.stop();
    rmSync(folder, { recursive: true });
  });

  it("the page allows its own script alone", async () => {
    const response = await fetch(`${server.url}/`);
    const policy = response.headers.get("content-security-policy")!;
    assert.match(policy, /default-src 'none'; script-src 'self';/);
    assert.match(policy, /frame-ancestors 'none'/);
    const html = await response.text();
    assert.deepEqual([...html.matchAll(/<script[^>]*>/g)].map(([tag]) => tag), ['<script src="/page.js" defer>']);
    assert.doesNotMatch(html, /\son\w+=|style=/);
    assert.match((await fetch(`${server.url}/page.js`)).headers.get("content-type")!, /javascript/);
  });

  it("artefacts are shown in a sandbox", async () => {
    const { artefacts } = (await events(await server.run({ inline: one("say", { what: "x" }) }))).at(-1);
    for (const name of ["report.html", "x.svg", "x.js"]) {
      const response = await fetch(`${server.url}/artefacts/${artefacts[0].sha256}?name=${name}`);
      await response.body?.cancel();
      assert.match(response.headers.get("content-security-policy")!, /^sandbox; default-src 'none'/);
      assert.equal(response.headers.get("x-content-type-options"), "nosniff");
      const type = response.headers.get("content-type");
      assert.equal(type, name === "report.html" ? "text/html; charset=utf-8" : "application/octet-stream");
    }
  });

  it("runs a pipeline, shows how far it is and what came out (headless Chromium)", {
    timeout: 120_000,
    skip: chromium === undefined ? "no Chromium is installed" : false,
  }, async () => {
    const page = await openPage(`${server.url}/`);
    try {
      const shows = (script: string) => until(() => page.evaluate<boolean>(`Boolean(${script})`));
      await shows('document.querySelector("#params input")');
      await page.evaluate('document.querySelector("#run").click()');
      await shows('document.querySelectorAll("#steps li").length === 2');
      await shows('document.querySelector("#steps li:first-child progress").value === 100');
      await shows('/s, .* left/.test(document.querySelector("#steps li:last-child small").textContent)');
      server.gate.open = true;
      await shows('!document.querySelector("#result").hidden');
      assert.match(await page.evaluate('document.querySelector("#status").textContent'), /^done in/);
      assert.deepEqual(
        await page.evaluate('[...document.querySelectorAll("#files button")].map((b) => b.textContent.split(" ")[0])'),
        ["manifest.json", "words.json"],
      );
      // A mistake is shown with its place.
      await page.evaluate(`(() => {
        const select = document.querySelector("#pipeline");
        select.value = "";
        select.dispatchEvent(new Event("change"));
        document.querySelector("#inline").value = "sau: 1\\nname: x\\nsteps: { a: { use: sayy } }";
        document.querySelector("#run").click();
      })()`);
      await shows('document.querySelector("#status").className === "bad"');
      assert.match(await page.evaluate('document.querySelector("#status").textContent'), /line 3, column 20: .*sayy/);
      // The run that the page cancels ends.
      server.gate.open = false;
      await page.evaluate(
        `document.querySelector("#inline").value = ${
          JSON.stringify(JSON.stringify(one("wait", { label: "cancelled" })))
        }; document.querySelector("#run").click()`,
      );
      await until(() => server.gate.running.size === 1);
      await shows('!document.querySelector("#cancel").disabled');
      await page.evaluate('document.querySelector("#cancel").click()');
      await until(() => server.gate.running.size === 0);
      await shows('document.querySelector("#status").textContent.startsWith("Cancelled")');
      assert.deepEqual(page.complaints.filter((text) => !/favicon|422/.test(text)), []);
    } finally {
      await page.close();
    }
  });
});
