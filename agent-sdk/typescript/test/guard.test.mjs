// Services that ask the guard. The guard here is a stand-in that answers as it is told; the last test asks the real one.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import express from "express";
import fastify from "fastify";
import { Guard, Refused, Unusable } from "../dist/index.js";
import { SEARCH, start, until } from "./dev.mjs";

const GOOD = {
  decision: true, agent_id: "spiffe://own.example/agent/a/0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee", user: { iss: "https://login.example", sub: "demo" },
  chain: ["spiffe://own.example/workload/w"], scopes: ["search:read"], delegation_id: "0".repeat(64), mode: "delegated",
  expires_at: "2030-01-01T00:00:00Z", revision: 7, staleness_ms: 3,
};
let folder, fake, guard, status, answer, asked, silent;
const say = (code, object) => ((status = code), (answer = typeof object === "string" ? object : JSON.stringify(object)));

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "mayfly-guard-"));
  fake = createServer(async (request, response) => {
    asked.push(JSON.parse((await request.toArray()).join("")));
    if (!silent) response.writeHead(status).end(answer);
  }).listen(join(folder, "guard.sock"));
  await once(fake, "listening");
  guard = new Guard({ address: `unix:${folder}/guard.sock`, audience: SEARCH, timeout: 1 });
  [asked, silent] = [[], false];
});
after(async () => {
  guard.close();
  fake.closeAllConnections();
  fake.close();
  await rm(folder, { recursive: true, force: true });
});

const refused = async (promise) => {
  try {
    await promise;
  } catch (e) {
    assert.ok(e instanceof Refused, String(e));
    return e;
  }
  throw new assert.AssertionError({ message: "it passed" });
};

test("a question is the contract, and its answer the caller", async () => {
  say(200, GOOD);
  const caller = await guard.checkHeader(["Bearer a.b.c"], ["search:read"]);
  assert.deepEqual(asked.splice(0), [{ credential: "a.b.c", audience: SEARCH, scopes: ["search:read"] }]);
  assert.deepEqual([caller.agentId, caller.user.sub, caller.revision], [GOOD.agent_id, "demo", 7]);
});

test("a resource of OAuth says where its metadata is, and actions are for who asks for them", async () => {
  const [address, audience, issuer] = [`unix:${folder}/guard.sock`, "https://mail.example/mcp", "https://issuer.example"];
  const resource = new Guard({ address, audience, issuer, timeout: 1 });
  const pointer = 'resource_metadata="https://mail.example/.well-known/oauth-protected-resource/mcp"';
  say(403, { decision: false, reason: "SCOPE_MISSING", hint: "no" });
  const lacking = await refused(resource.check("a.b.c", ["a"]));
  assert.equal(lacking.headers["www-authenticate"], `Bearer error="insufficient_scope", scope="a", ${pointer}`);
  assert.equal((await refused(resource.checkHeader([]))).headers["www-authenticate"], `Bearer ${pointer}`);
  assert.equal(resource.metadataPath, "/.well-known/oauth-protected-resource/mcp");
  assert.deepEqual(resource.metadata(["a"]), {
    resource: audience, authorization_servers: [issuer], bearer_methods_supported: ["header"], scopes_supported: ["a"],
  });
  for (const bad of ["mail", "http://mail.example", "https://mail.example/", "https://u@mail.example", "https://m.example?x"]) {
    assert.throws(() => new Guard({ address, audience: bad, issuer }), Unusable);
  }
  asked.splice(0);
  const details = [{ type: "payment", amount: "10.00" }];
  say(200, { ...GOOD, subject: "dev|demo", authorization_details: details, approval_id: "ab" });
  const caller = await resource.check("a.b.c", [], { actions: true });
  assert.deepEqual([caller.subject, caller.authorizationDetails, caller.approvalId], ["dev|demo", details, "ab"]);
  assert.equal(asked.splice(0)[0].actions, true);
  for (const bad of ["x", [1], [{}], { type: "payment" }, null]) {
    say(200, { ...GOOD, authorization_details: bad });
    assert.equal((await refused(resource.check("a.b.c"))).status, 503, JSON.stringify(bad));
  }
  asked.splice(0);
  resource.close();
});

test("each refusal has its status and challenge", async () => {
  for (const [reason, code, challenge] of [
    ["CREDENTIAL_REVOKED", 401, 'Bearer error="invalid_token"'], ["NOT_INVENTED_YET", 401, 'Bearer error="invalid_token"'],
    ["SCOPE_MISSING", 403, 'Bearer error="insufficient_scope", scope="search:read"'], ["CALLER_NOT_AN_AGENT", 403, undefined],
    ["CREDENTIAL_STALE", 503, undefined],
  ]) {
    say(403, { decision: false, reason });
    const e = await refused(guard.check("a.b.c", ["search:read"]));
    assert.deepEqual([e.status, e.code, e.headers["www-authenticate"], e.transient], [code, reason, challenge, code === 503]);
  }
});

test("what is no single bearer token is not even asked about", async () => {
  asked.length = 0;
  for (const headers of [[], [""], ["Bearer"], ["Basic abc"], ["Bearer a b"], ["Bearer a,b"], ["Bearer a", "Bearer a"], ["Bearer a\nb"], ["Bearer a\n"]]) {
    assert.equal((await refused(guard.checkHeader(headers))).status, 401);
  }
  assert.equal(asked.length, 0);
});

test("nothing but a whole yes is a yes", async () => {
  for (const name of Object.keys(GOOD).filter((name) => name !== "staleness_ms")) {
    say(200, { ...GOOD, [name]: undefined });
    assert.equal((await refused(guard.check("a"))).status, name === "agent_id" ? 403 : 503, name);
  }
  for (const more of [{ decision: "true" }, { decision: 1 }, { agent_id: 5 }, { user: { iss: "x" } }, { chain: null }, { scopes: [null] }, { expires_at: "soon" }, { revision: "7" }]) {
    say(200, { ...GOOD, ...more });
    assert.equal((await refused(guard.check("a"))).status, 503, JSON.stringify(more));
  }
  say(200, { ...GOOD, scopes: [] });
  assert.equal((await refused(guard.check("a", ["search:read"]))).code, "SCOPE_MISSING");
  for (const code of [200, 201, 302, 403, 404, 500, 503]) {
    for (const text of ["", "null", "[]", "{}", "<html>", '{"decision":false}']) {
      say(code, text);
      assert.equal((await refused(guard.check("a"))).status, 503, `${code} ${text}`);
    }
  }
});

test("Express, Fastify and fetch handlers refuse, and fail closed", async () => {
  const app = express();
  app.get("/", guard.express("search:read"), (request, response) => response.send(request.mayfly.user.sub));
  const server = app.listen(0, "127.0.0.1");
  await once(server, "listening");
  const fast = fastify();
  let reached = 0;
  fast.get("/", { preHandler: guard.fastify("search:read") }, async (request) => (reached++, request.mayfly.user.sub));
  const other = await fast.listen({ port: 0, host: "127.0.0.1" });
  const handler = guard.handler(["search:read"], (_, caller) => new Response(caller.user.sub));
  const url = `http://127.0.0.1:${server.address().port}`;
  const both = async (headers) => [await fetch(url, { headers }), await fetch(other, { headers }), await handler(new Request(url, { headers }))];
  const token = { authorization: "Bearer a.b.c" };
  say(200, GOOD);
  for (const response of await both(token)) assert.equal(await response.text(), "demo");
  for (const response of await both({})) assert.deepEqual([response.status, response.headers.get("www-authenticate")], [401, "Bearer"]);
  const twice = new Headers([["authorization", "Bearer a"], ["authorization", "Bearer b"]]);
  for (const response of await both(twice)) assert.equal(response.status, 401);
  say(403, { decision: false, reason: "SCOPE_MISSING" });
  for (const response of await both(token)) assert.deepEqual([response.status, await response.json()], [403, { error: "SCOPE_MISSING" }]);
  silent = true;
  for (const response of await both(token)) assert.equal(response.status, 503);
  silent = false;
  assert.equal(reached, 1);
  server.closeAllConnections();
  server.close();
  await fast.close();
});

test("a guard is on this machine, and away is no yes", async () => {
  for (const address of ["", "guard.example:80", "10.0.0.1:80", "https://127.0.0.1:80", "unix:", "unix:a.sock", "127.0.0.1"]) {
    assert.throws(() => new Guard({ address, audience: SEARCH }), { code: "guard" }, address);
  }
  assert.throws(() => new Guard({ address: "127.0.0.1:1" }), { code: "audience" });
  const away = new Guard({ address: `unix:${folder}/none.sock`, audience: SEARCH });
  assert.equal((await refused(away.check("a"))).status, 503);
});

test("the real guard lets an agent pass until it is revoked", async (t) => {
  if (spawnSync(process.env.MAYFLY ?? "mayfly", ["guard", "--help"]).status !== 0) return t.skip("this `mayfly` has no guard");
  const dev = await start();
  let running;
  try {
    await writeFile(join(dev.folder, "t"), JSON.parse(await dev.cli("join", "guard", "-o", "json")).token);
    await dev.cli("redeem", "--ticket-file", "t", "--out", "g");
    running = spawn(dev.binary, ["guard", "--as", "g", "--listen", `unix:${dev.folder}/guard.sock`], { cwd: dev.folder, stdio: "ignore" });
    const real = new Guard({ address: `unix:${dev.folder}/guard.sock`, audience: SEARCH });
    const agent = await dev.spawn("researcher", { scopes: ["search:read"] });
    const token = await agent.token(SEARCH);
    const passes = () => real.check(token, ["search:read"]).then((caller) => caller, (e) => assert.equal(e.status, 503));
    await until(passes);
    const caller = await passes();
    assert.deepEqual([caller.agentId, caller.user, caller.chain, caller.scopes], [agent.id, agent.user, agent.chain, ["search:read"]]);
    assert.equal((await refused(real.check(token, ["mail:send"]))).code, "SCOPE_MISSING");
    await dev.revoke(agent.id);
    await until(() => real.check(token).then(() => false, (e) => e.code === "CREDENTIAL_REVOKED"));
    real.close();
  } finally {
    if (running) {
      running.kill();
      await once(running, "exit");
    }
    await dev.stop();
  }
});
