// The examples for MCP: an agent calls a tool of a server that asks a real guard.
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { start } from "./dev.mjs";

const sdk = fileURLToPath(new URL("../..", import.meta.url));

/** Starts a program, and waits for a line that it prints. */
async function line(child, pattern) {
  for await (const text of createInterface({ input: child.stdout })) if (pattern.test(text)) return pattern.exec(text);
  throw new Error(`it ended without ${pattern}`);
}

test("an agent calls a tool, and the server knows for whom", { timeout: 240_000 }, async () => {
  const dev = await start();
  const running = [];
  try {
    const cwd = dev.folder;
    await mkdir(join(cwd, "agent-sdk"));
    for (const folder of ["typescript", "examples/mcp"]) await cp(join(sdk, folder), join(cwd, "agent-sdk", folder), { recursive: true });
    for (const name of ["agent.mjs", "server.mjs"]) {
      const text = await readFile(join(sdk, "examples/mcp", name), "utf8");
      assert.ok(text.split("\n").length <= 31, name);
    }
    const packages = ["client@2.4.0", "server@2.4.0", "node@2.1.2"].map((name) => `@modelcontextprotocol/${name}`);
    await writeFile(join(cwd, "package.json"), "{}");
    await promisify(execFile)("npm", ["install", "./agent-sdk/typescript", ...packages, "zod@4"], { cwd });
    await writeFile(join(cwd, "t"), JSON.parse(await dev.cli("join", "guard", "-o", "json")).token);
    await dev.cli("redeem", "--ticket-file", "t", "--out", "g");
    await writeFile(join(cwd, "user.jwt"), await dev.userToken());
    const env = { ...process.env, MAYFLY_GUARD: `unix:${join(cwd, "guard.sock")}` };
    const begin = async (pattern, command, ...args) => {
      const child = spawn(command, args, { cwd, env, stdio: ["ignore", "pipe", "inherit"] });
      running.push(child);
      return line(child, pattern);
    };
    await begin(/ready/, dev.binary, "guard", "--as", "g", "--listen", env.MAYFLY_GUARD);
    const [, url] = await begin(/running on (\S+)/, process.execPath, "agent-sdk/examples/mcp/server.mjs", "0");
    const calls = (...options) => {
      const command = [process.execPath, "agent-sdk/examples/mcp/agent.mjs", url];
      const args = ["run", "--class", "researcher", "--user-token", "user.jwt", ...options, "--", ...command];
      return promisify(execFile)(dev.binary, args, { cwd, timeout: 60_000 });
    };
    assert.match((await calls()).stdout, /^ants for demo by spiffe:\/\/dev\.mayfly\.test\/agent\/researcher\/\S+\n$/);
    await assert.rejects(calls("--scope", "files:read"), /InsufficientScopeError: .*search:read/);
  } finally {
    for (const child of running) {
      const ended = once(child, "exit");
      if (child.kill()) await ended;
    }
    await dev.stop();
  }
});
