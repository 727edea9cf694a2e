// A real issuer for the tests: `mayfly dev` in a temporary folder, with the binary of $MAYFLY.
import { execFile, spawn } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { current } from "../dist/index.js";

const QUICK = `
[[classes]]
name = "quick"
owner = "tests"
scopes = ["search:read"]
audiences = ["https://search.example", "https://files.example"]
svid_ttl = "10s"
max_lease = "10m"
max_depth = 3
modes = ["delegated"]
spawners = ["workload/orchestrator", "class/quick"]

[[classes]]
name = "thrifty"
owner = "finance"
scopes = ["search:read"]
audiences = ["https://search.example"]
budget = { ops = 10 }
svid_ttl = "5m"
max_lease = "10m"
modes = ["delegated"]
spawners = ["workload/orchestrator"]
`;
export const SEARCH = "https://search.example";
for (const name of ["MAYFLY_HOME", "MAYFLY_SERVER", "MAYFLY_TICKET", "SPIFFE_ENDPOINT_SOCKET"]) delete process.env[name];

export async function start() {
  const binary = process.env.MAYFLY ?? "mayfly";
  const folder = await mkdtemp(join(tmpdir(), "mayfly-"));
  await writeFile(join(folder, "more.toml"), QUICK);
  const child = spawn(binary, ["dev", "--config", "more.toml"], { cwd: folder, stdio: ["ignore", "pipe", "inherit"] });
  await new Promise((resolve, reject) => {
    let said = "";
    child.stdout.on("data", (part) => (said += part).includes("ready") && resolve());
    child.once("exit", (code) => reject(new Error(`mayfly dev ended with ${code}`)));
  });
  const endpoint = JSON.parse(await readFile(join(folder, ".mayfly/endpoint.json"), "utf8"));
  const cli = async (...args) => (await promisify(execFile)(binary, args, { cwd: folder })).stdout;
  const workload = await current(join(folder, ".mayfly/workloads/orchestrator"));
  return {
    folder, binary, child, cli, workload,
    address: endpoint.grpc,
    userToken: async (user = "demo") => (await cli("token", user)).trim(),
    spawn: async (agentClass, asked = {}, user = "demo") => workload.spawn(agentClass, { userToken: (await cli("token", user)).trim(), ...asked }),
    agent: async (id) => JSON.parse(await cli("agents", "show", id, "-o", "json")),
    revoke: (id) => cli("revoke", "--agent", id),
    async stop() {
      workload.close();
      const ended = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGCONT");
      child.kill("SIGTERM");
      await ended;
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** Waits for a condition, at most `seconds`. */
export async function until(condition, seconds = 30) {
  // Not by the time of day, which a test may set.
  for (const end = performance.now() + seconds * 1000; !(await condition()); await sleep(20)) {
    if (performance.now() > end) throw new Error("it never came true");
  }
}
