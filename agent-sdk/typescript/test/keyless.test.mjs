// Sub-agents that are no processes: one process, one key, many agents; and calls that meet a renewal.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { Denied, Ended, Revoked, SubAgent } from "../dist/index.js";
import { SEARCH, start, until } from "./dev.mjs";

let dev;
before(async () => (dev = await start()));
after(() => dev.stop());

const claims = (token) => JSON.parse(Buffer.from(token.split(".")[1], "base64url"));

test("a sub-agent is itself, its parent presents, and it spawns nothing", async () => {
  const me = await dev.spawn("researcher");
  const child = await me.spawn("worker", { scopes: ["search:read"], keyless: true });
  const { id } = child;
  assert.ok(child instanceof SubAgent && id !== me.id);
  assert.deepEqual([child.user, child.scopes, child.chain], [me.user, ["search:read"], [me.id, ...me.chain]]);
  const token = await child.token(SEARCH);
  assert.equal(claims(token).sub, id);
  assert.deepEqual(Object.keys(claims(token).cnf), ["x5t#S256"]);
  assert.deepEqual([await child.token(SEARCH), claims(await me.token(SEARCH)).cnf], [token, undefined]);
  assert.equal(claims(await child.token(SEARCH, { scope: "search:read" })).client_id, id);
  await assert.rejects(child.token("https://mail.example"), { code: "AUDIENCE_NOT_ALLOWED" });
  await assert.rejects(child.spawn("worker", { keyless: true }), (e) => e instanceof Denied && e.code === "PARENT_ONLY");
  await child.end();
  assert.equal((await dev.agent(id)).state, "ended");
  assert.ok(child.ended.reason instanceof Ended && !me.ended.aborted);
  await assert.rejects(child.token(SEARCH), Ended);
  await me.end();
});

test("a revoked sub-agent stops alone, and all stop with their parent", async () => {
  const me = await dev.spawn("researcher");
  const [one, two] = await Promise.all([1, 2].map(() => me.spawn("worker", { keyless: true })));
  await dev.revoke(one.id);
  await assert.rejects(one.token(SEARCH), (e) => e instanceof Revoked && e.code === "AGENT_REVOKED");
  assert.ok(one.ended.aborted && !two.ended.aborted);
  await two.token(SEARCH);
  await dev.revoke(me.id);
  await until(() => two.ended.aborted);
  await assert.rejects(two.token(SEARCH), Revoked);
});

test("a hundred sub-agents in one process have a token each, and a rotation fails no call", async () => {
  const warned = [];
  process.on("warning", (warning) => warned.push(warning.message));
  const me = await dev.spawn("quick");
  const some = await Promise.all(Array.from({ length: 100 }, () => me.spawn("quick", { keyless: true })));
  const subjects = await Promise.all(some.map(async (child) => claims(await child.token(SEARCH)).sub));
  assert.deepEqual(subjects, some.map((child) => child.id));
  assert.equal(new Set(subjects).size, 100);
  const [first, bound] = [me.expiresAt.getTime(), claims(await some[0].token(SEARCH)).cnf];
  await until(async () => (await some[1].token(SEARCH)) && me.expiresAt.getTime() !== first);
  assert.notDeepEqual(claims(await some[0].token(SEARCH)).cnf, bound);
  await Promise.all(some.map((child) => child.end()));
  assert.ok(!me.ended.aborted);
  assert.deepEqual(warned, []);
  await me.end();
});

test("under mayfly run, sub-agents and calls meet renewals, and nobody is revoked", async () => {
  // The first certificate that is fetched is one from before a used renewal, as when a renewal comes in between.
  const program = `
    import { setTimeout as sleep } from "node:timers/promises";
    import { current } from ${JSON.stringify(pathToFileURL(join(import.meta.dirname, "../dist/index.js")).href)};
    import { Served } from ${JSON.stringify(pathToFileURL(join(import.meta.dirname, "../dist/workload.js")).href)};
    let old, asked = 0;
    const newest = Served.prototype.newest;
    const me = await current();
    const first = me.expiresAt.getTime();
    Served.prototype.newest = async function () { return (old ??= await newest.call(this)), asked++ < 1 ? old : newest.call(this); };
    await (await me.spawn("quick", { keyless: true })).end();
    asked = 0;
    while (me.expiresAt.getTime() === first) await sleep(20);
    await sleep(300);
    const child = await me.spawn("quick"), part = await me.spawn("quick", { keyless: true });
    console.log(child.chain[0] === me.id, part.chain[0] === me.id, (await part.token(${JSON.stringify(SEARCH)})).slice(0, 2));
    console.log((await part.token(${JSON.stringify(SEARCH)}, { scope: "search:read" })).slice(0, 2), asked > 2);
    await part.end(); await child.end();
    console.log(me.ended.aborted, (await me.token("https://files.example")).slice(0, 2));
    me.close(); child.close();`;
  const { writeFile } = await import("node:fs/promises");
  await writeFile(join(dev.folder, "user.jwt"), await dev.userToken());
  const args = ["run", "--class", "quick", "--user-token", "user.jwt", "--", process.execPath, "--input-type=module", "-e", program];
  const child = spawn(dev.binary, args, { cwd: dev.folder, stdio: ["ignore", "pipe", "inherit"] });
  let said = "";
  child.stdout.on("data", (part) => (said += part));
  const [code] = await once(child, "close");
  assert.deepEqual([code, said], [0, "true true ey\ney true\nfalse ey\n"]);
});
