import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../", import.meta.url));

describe("docs/security.md", () => {
  it("names tests that exist", () => {
    // Folder by folder: tests that run beside this one make hidden folders among them and take them away again.
    const folders = readdirSync(join(root, "test"), { withFileTypes: true })
      .filter((entry) => entry.isDirectory() && !entry.name.startsWith("."));
    const tests = folders.flatMap(({ name }) =>
      readdirSync(join(root, "test", name))
        .filter((file) => file.endsWith(".test.ts"))
        .map((file) => readFileSync(join(root, "test", name, file), "utf8"))
    ).join("\n");
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
