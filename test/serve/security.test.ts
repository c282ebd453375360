import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../", import.meta.url));

describe("docs/security.md", () => {
  it("names tests that exist", () => {
    const tests = readdirSync(join(root, "test"), { recursive: true, encoding: "utf8" })
      .filter((file) => file.endsWith(".test.ts"))
      .map((file) => readFileSync(join(root, "test", file), "utf8")).join("\n");
    const rows = readFileSync(join(root, "docs/security.md"), "utf8").split("\n")
      .filter((line) => line.startsWith("| ") && !/^\| (threat|-)/.test(line));
    assert.ok(rows.length >= 15);
    for (const row of rows) {
      const named = [...row.split("|")[3].matchAll(/`([^`]+)`/g)].map(([, name]) => name);
      assert.ok(named.length > 0, row);
      for (const name of named) assert.ok(tests.includes(`"${name}"`), name);
    }
  });
});
