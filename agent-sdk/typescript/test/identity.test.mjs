// Identities against a real issuer: where they come from, rotation, revocation, denial, trees, mTLS.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import https from "node:https";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { current, Denied, Ended, Expired, MayflyError, NoIdentity, Revoked, Unusable } from "../dist/index.js";
import { SEARCH, start, until } from "./dev.mjs";

let dev;
before(async () => (dev = await start()));
after(() => dev.stop());

const claims = (token) => JSON.parse(Buffer.from(token.split(".")[1], "base64url"));

test("an agent knows itself, and after its end everything throws", async () => {
  const agent = await dev.spawn("researcher", { scopes: ["search:read"], lease: 600 });
  assert.equal(agent.user.sub, "demo");
  assert.deepEqual([agent.scopes, agent.chain], [["search:read"], ["spiffe://dev.mayfly.test/workload/orchestrator"]]);
  assert.equal(agent.binding.mode, "delegated");
  const { id } = agent;
  assert.equal((await dev.agent(id)).delegation_id, agent.binding.delegationId);
  const token = await agent.token(SEARCH);
  assert.deepEqual([claims(token).sub, await agent.token(SEARCH)], [id, token]);
  await agent.end();
  assert.equal((await dev.agent(id)).state, "ended");
  assert.ok(agent.ended.reason instanceof Ended);
  assert.throws(() => agent.id, Revoked);
  assert.throws(() => agent.tlsOptions(id), Revoked);
  await assert.rejects(agent.token(SEARCH), Revoked);
  await assert.rejects(agent.spawn("worker"), Revoked);
  await agent.end();
});

test("a tree acts for one user, and each may do less", async () => {
  const lead = await dev.spawn("researcher", {}, "guest");
  const worker = await lead.spawn("worker", { scopes: ["search:read"] });
  assert.deepEqual([worker.user, worker.chain, worker.scopes], [lead.user, [lead.id, dev.workload.id], ["search:read"]]);
  await assert.rejects(lead.spawn("worker", { scopes: ["mail:send"] }), (e) => e instanceof Denied && e.code === "EXCEEDS_AUTHORITY");
  const clipped = await lead.spawn("worker", { scopes: ["mail:send", "search:read"], clip: true });
  assert.deepEqual(clipped.clipped, ["scope:mail:send"]);
  await assert.rejects(dev.workload.spawn("nope", { userToken: await dev.userToken() }), { code: "CLASS_UNKNOWN" });
  await assert.rejects(worker.token("https://evil.example"), (e) => e.code === "AUDIENCE_NOT_ALLOWED" && !e.transient);
  await lead.end();
  await until(() => worker.ended.aborted && clipped.ended.aborted);
  assert.equal(worker.ended.reason.code, "AGENT_ORPHANED");
});

test("a revoked agent stops: no call leaves the process, and one under way is given up", async () => {
  const agent = await dev.spawn("researcher");
  const seen = [];
  const server = createServer((request, response) => {
    seen.push(request.headers.authorization);
    if (request.url === "/quick") response.end("ok");
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `http://127.0.0.1:${server.address().port}`;
  const call = agent.fetch(SEARCH);
  assert.equal(await (await call(`${url}/quick`, { headers: { authorization: "Bearer other" } })).text(), "ok");
  assert.deepEqual(seen, [`Bearer ${await agent.token(SEARCH)}`]);
  const hangs = assert.rejects(call(`${url}/slow`), Revoked);
  await until(() => seen.length === 2);
  await dev.revoke(agent.id);
  await hangs;
  await assert.rejects(call(`${url}/quick`), { code: "AGENT_REVOKED" });
  await assert.rejects(agent.authProvider(SEARCH).token(), Revoked);
  assert.equal(seen.length, 2);
  server.closeAllConnections();
  server.close();
});

test("a certificate rotates under use, and no call fails", { timeout: 90_000 }, async () => {
  const agent = await dev.spawn("quick");
  const child = await agent.spawn("quick");
  const seen = new Set();
  const work = async (me) => {
    while (seen.size < 4) {
      seen.add(agent.expiresAt.getTime());
      // Past the cache: each is a call to the issuer.
      const one = await me.spawn("quick");
      assert.equal(claims(await one.token(SEARCH)).sub, one.id);
      await one.end();
      await sleep(50);
    }
  };
  await Promise.all([work(agent), work(child)]);
  assert.deepEqual([(await dev.agent(agent.id)).state, (await dev.agent(child.id)).state], ["live", "live"]);
  await agent.end();
});

test("an issuer that is away is waited for, and one that stays away is the end", { timeout: 90_000 }, async () => {
  const agent = await dev.spawn("quick");
  const token = await agent.token(SEARCH);
  const before = agent.expiresAt;
  dev.child.kill("SIGSTOP");
  await sleep(2000);
  assert.equal(await agent.token(SEARCH), token);
  dev.child.kill("SIGCONT");
  await until(() => agent.expiresAt > before);
  dev.child.kill("SIGSTOP");
  await until(() => agent.ended.aborted);
  dev.child.kill("SIGCONT");
  assert.ok(agent.ended.reason instanceof Expired);
});

test("a lease is the end", { timeout: 60_000 }, async () => {
  const agent = await dev.spawn("researcher", { lease: 3 });
  const { id } = agent;
  const token = await agent.token(SEARCH);
  assert.ok(claims(token).exp <= agent.expiresAt.getTime() / 1000 + 1);
  await until(() => agent.ended.aborted);
  assert.ok(agent.ended.reason instanceof Expired);
  await assert.rejects(agent.token(SEARCH), Expired);
  await until(async () => (await dev.agent(id)).state === "expired");
});

test("a clock that is set forward renews at once, and past the end nothing is given out", { timeout: 60_000 }, async (t) => {
  const agent = await dev.spawn("researcher");
  const before = agent.expiresAt.getTime();
  const [real, token] = [Date.now, await agent.token(SEARCH)];
  t.after(() => (Date.now = real));
  Date.now = () => real() + 12 * 60_000;
  await until(() => agent.expiresAt.getTime() !== before, 25);
  assert.notEqual(await agent.token(SEARCH), token);
  Date.now = () => real() + 3_600_000;
  await assert.rejects(agent.token(SEARCH), Expired);
  assert.ok(agent.ended.reason instanceof Expired);
});

test("a ticket is redeemed once, and pins the issuer", async () => {
  await writeFile(join(dev.folder, "user.jwt"), await dev.userToken());
  await dev.cli("spawn", "--class", "researcher", "--user-token", "user.jwt", "--ticket", "--out", "t1");
  const ticket = (await readFile(join(dev.folder, "t1/ticket"), "utf8")).trim();
  const other = await start();
  try {
    const raw = Buffer.from(ticket.slice(8), "base64url");
    const address = Buffer.from(other.address);
    const forged = Buffer.concat([Buffer.from([1, address.length]), address, raw.subarray(2 + raw[1])]);
    await assert.rejects(current(`mayfly1.${forged.toString("base64url")}`), { code: "untrusted" });
    const lost = await current(join(dev.folder, ".mayfly/workloads/orchestrator"), { server: other.address });
    await assert.rejects(lost.spawn("researcher"), { code: "untrusted" });
    lost.close();
  } finally {
    await other.stop();
  }
  const agent = await current(ticket);
  assert.ok(await agent.token(SEARCH));
  await assert.rejects(current(ticket), { code: "TICKET_REFUSED" });
  await agent.end();
  for (const bad of ["mayfly1.", "mayfly2.x", `${ticket}=`, ticket.slice(0, -2), `${ticket.slice(0, 30)} ${ticket.slice(30)}`]) {
    await assert.rejects(current(bad), (e) => e instanceof Unusable && !e.message.includes(ticket.slice(20)), bad);
  }
});

test("a folder is taken over under a new key, and its copy is worth nothing", async () => {
  await writeFile(join(dev.folder, "user.jwt"), await dev.userToken());
  await dev.cli("spawn", "--class", "researcher", "--user-token", "user.jwt", "--out", "f1");
  const options = { server: dev.address };
  const agent = await current(join(dev.folder, "f1"), options);
  assert.ok(await agent.token(SEARCH));
  await assert.rejects(current(join(dev.folder, "f1"), options), Revoked);
  await until(() => agent.ended.aborted);
});

test("under mayfly run a program has an identity, spawns, and ends when it is closed", async () => {
  await writeFile(join(dev.folder, "user.jwt"), await dev.userToken());
  const program = `
    import { current } from ${JSON.stringify(new URL("../dist/index.js", import.meta.url).href)};
    const me = await current();
    const child = await me.spawn("worker");
    console.log(me === (await current()), me.user.sub, child.chain[0] === me.id, (await me.token("${SEARCH}")).slice(0, 2));
    try { await me.token("https://evil.example"); } catch (e) { console.log(e.name); }
    await child.end();
    me.close();
  `;
  const args = ["run", "--class", "researcher", "--user-token", "user.jwt", "--", process.execPath, "--input-type=module", "-e", program];
  const run = spawn(dev.binary, args, { cwd: dev.folder, stdio: ["ignore", "pipe", "inherit"] });
  let said = "";
  run.stdout.on("data", (part) => (said += part));
  const [code] = await once(run, "exit");
  assert.equal(code, 0);
  assert.match(said, /^true demo true ey\n[A-Z][A-Za-z]+\n$/);
});

test("without an identity the error says how to get one", async () => {
  await assert.rejects(current(), (e) => e instanceof NoIdentity && e.hint.includes("mayfly run"));
  for (const bad of ["/nothing", "unix:a.sock", "unix:///", "tcp://localhost:80"]) await assert.rejects(current(bad), Unusable, bad);
  await assert.rejects(current("unix:///tmp/none.sock", { patience: 0.3 }), { code: "unavailable" });
});

test("in mTLS the SPIFFE ID decides, and each connection has the newest certificate", async () => {
  const [one, two] = [await dev.spawn("researcher"), await dev.spawn("worker")];
  const { key, cert, ca } = one.tlsOptions("spiffe://dev.mayfly.test");
  let served = 0;
  const server = https.createServer({ key, cert, ca, requestCert: true, rejectUnauthorized: true }, (_, response) => {
    served++;
    response.end("hello");
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const get = (agent, more = {}) =>
    new Promise((resolve, reject) => {
      https.get({ port: server.address().port, host: "127.0.0.1", agent, ...more }, (response) => resolve(response.resume().statusCode)).on("error", reject);
    });
  for (const peer of [one.id, "spiffe://dev.mayfly.test/agent/researcher/", "spiffe://dev.mayfly.test", (id) => id === one.id]) {
    assert.equal(await get(two.httpsAgent(peer)), 200);
  }
  for (const peer of [two.id, "spiffe://dev.mayfly.test/agent/worker/", "spiffe://dev.mayfly.test/agent/res/", () => false]) {
    await assert.rejects(get(two.httpsAgent(peer)), /another was asked for/);
    // What the caller says about TLS makes it no weaker.
    await assert.rejects(get(two.httpsAgent(peer), { rejectUnauthorized: false, checkServerIdentity: () => undefined }), /another was asked for/);
  }
  assert.equal(served, 4);
  for (const bad of ["", "*", "localhost", "spiffe://other.example/x", "spiffe://*"]) assert.throws(() => two.tlsOptions(bad), MayflyError, bad);
  server.closeAllConnections();
  server.close();
  await Promise.all([one.end(), two.end()]);
});

test("two users in one process never share a token", async () => {
  const [one, two] = [await dev.spawn("researcher", {}, "demo"), await dev.spawn("researcher", {}, "guest")];
  const ids = [one.id, two.id];
  const all = await Promise.all(Array.from({ length: 10_000 }, (_, n) => (n % 2 ? two : one).token(SEARCH)));
  assert.ok(all.every((token, n) => claims(token).sub === ids[n % 2]));
  assert.equal(new Set(all).size, 2);
  await Promise.all([one.end(), two.end()]);
});
