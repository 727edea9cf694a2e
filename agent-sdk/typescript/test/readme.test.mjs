// The page of the package as a reader follows it: each program with a name and each `$` line, in order, from an empty folder.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { promisify } from "node:util";
import { start } from "./dev.mjs";

test("every program and line of the page does what it says", { timeout: 240_000 }, async () => {
  const sdk = fileURLToPath(new URL("../..", import.meta.url));
  const page = await readFile(join(sdk, "typescript/README.md"), "utf8");
  const dev = await start();
  try {
    await mkdir(join(dev.folder, "agent-sdk"));
    await promisify(execFile)("cp", ["-r", join(sdk, "typescript"), join(dev.folder, "agent-sdk")]);
    await mkdir(join(dev.folder, "bin"));
    await symlink(dev.binary, join(dev.folder, "bin/mayfly"));
    const env = { ...process.env, PATH: [join(dev.folder, "bin"), dirname(process.execPath), process.env.PATH].join(":") };
    const said = [];
    for (const [, language, text] of page.matchAll(/^```(\w+)\n(.*?)^```$/gms)) {
      const name = /^\/\/ (\S+\.mjs)\n/.exec(text)?.[1];
      if (name) await writeFile(join(dev.folder, name), text);
      for (const line of language === "console" ? text.trim().split("\n") : []) {
        assert.ok(line.startsWith("$ "), line);
        if (line.includes("runs until Ctrl-C")) continue;
        said.push((await promisify(execFile)("sh", ["-c", line.slice(2)], { cwd: dev.folder, env })).stdout);
      }
    }
    assert.equal(said.length, 5);
    assert.match(said[2], /^spiffe:\/\/dev\.mayfly\.test\/agent\/researcher\/\S+ \{.*sub: 'demo'.*\} ey\S{8}\n$/s);
    assert.match(said[3], /^I am spiffe:\S+ for demo and may .*search:read.*\nfor search: ey\S{8} function\n$/);
    assert.match(said[4], /^a worker for demo true\nEXCEEDS_AUTHORITY - /);
  } finally {
    await dev.stop();
  }
});
