// Access tokens: by an identity of our own, under `mayfly run`, denied, revoked, and of two users in one process.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { once } from "node:events";
import { createServer as createTlsServer } from "node:tls";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { Denied, Revoked } from "../dist/index.js";
import { claimsOf } from "../dist/tokens.js";
import { SEARCH, start } from "./dev.mjs";

const FILES = "https://files.example";
let dev;
before(async () => (dev = await start()));
after(() => dev.stop());

const active = async (token) => {
  await writeFile(join(dev.folder, "introspected"), token);
  return JSON.parse(await dev.cli("introspect", "--token-file", "introspected", "-o", "json")).active;
};

test("an access token is for what was asked, and cached by that", async () => {
  const agent = await dev.spawn("researcher");
  const token = await agent.token(SEARCH, { scope: "search:read" });
  const { aud, scope, client_id, act, sub } = claimsOf(token);
  assert.deepEqual([aud, scope, client_id, act.sub], [SEARCH, "search:read", agent.id, agent.id]);
  assert.match(sub, /demo$/);
  assert.equal(await active(token), true);
  const both = await agent.token(SEARCH, { scope: "search:read files:read" });
  assert.equal(claimsOf(both).scope, "files:read search:read");
  assert.equal(await agent.token(SEARCH, { scope: ["files:read", "search:read", "files:read"] }), both);
  assert.equal(await agent.authProvider(SEARCH, { scope: "search:read" }).token(), token);
  const everything = await agent.token(SEARCH, { scope: "" });
  assert.deepEqual(new Set(claimsOf(everything).scope.split(" ")), new Set(agent.scopes));
  assert.equal(new Set([token, both, everything, await agent.token(SEARCH), await agent.token(FILES, { scope: "search:read" })]).size, 5);
  const denied = (code) => (e) => e instanceof Denied && e.code === code && !e.transient;
  await assert.rejects(agent.token(SEARCH, { scope: "no:such" }), denied("SCOPE_NOT_ALLOWED"));
  await assert.rejects(agent.token("https://evil.example", { scope: "" }), denied("AUDIENCE_NOT_ALLOWED"));
  await agent.end();
});

test("after a revocation no access token is handed out, and those in use are dead", async () => {
  const agent = await dev.spawn("researcher");
  const token = await agent.token(SEARCH, { scope: "search:read" });
  await dev.revoke(agent.id);
  assert.equal(await active(token), false);
  // Not cached: the issuer refuses, whether the news has come or not.
  await assert.rejects(agent.token(FILES, { scope: "search:read" }), Revoked);
  await assert.rejects(agent.token(SEARCH, { scope: "search:read" }), { code: "AGENT_REVOKED" });
});

test("two users in one process never share an access token", async () => {
  const [one, two] = [await dev.spawn("researcher", {}, "demo"), await dev.spawn("researcher", {}, "guest")];
  const ids = [one.id, two.id];
  const scopes = ["search:read", "files:read", ""];
  const all = await Promise.all(Array.from({ length: 10_000 }, (_, n) => (n % 2 ? two : one).token(SEARCH, { scope: scopes[n % 3] })));
  all.forEach((token, n) => {
    const { client_id, sub, scope } = claimsOf(token);
    assert.ok(client_id === ids[n % 2] && sub.endsWith(n % 2 ? "guest" : "demo") && ["", scope].includes(scopes[n % 3]));
  });
  assert.equal(new Set(all).size, 6);
  await Promise.all([one.end(), two.end()]);
});

test("t219 each assertion is a new one", async () => {
  const agent = await dev.spawn("researcher");
  const { iss } = claimsOf(await agent.token(SEARCH));
  const all = await Promise.all([agent.assertion(iss), agent.assertion(iss), agent.token(iss)]);
  assert.equal(new Set([...all, await agent.token(iss)]).size, 4);
  await agent.end();
});

/** What a program under `mayfly run` prints, without a word to it about where the issuer is unless it is given. */
async function run(program, environment) {
  await writeFile(join(dev.folder, "user.jwt"), await dev.userToken());
  const index = JSON.stringify(new URL("../dist/", import.meta.url).href);
  const text = `
    const { current } = await import(${index} + "index.js");
    const { claimsOf } = await import(${index} + "tokens.js");
    const SEARCH = "${SEARCH}";
    ${program}`;
  const variables = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
  const command = ["env", "-u", "MAYFLY_SERVER", "MAYFLY_HOME=none", ...variables, process.execPath, "--input-type=module", "-e", text];
  const args = ["run", "--class", "researcher", "--user-token", "user.jwt", "--", ...command];
  return (await promisify(execFile)(dev.binary, args, { cwd: dev.folder, timeout: 60_000 })).stdout;
}

const ASKS = `
  const me = await current();
  const tokens = [];
  for (const scope of ["search:read", "files:read", "", "search:read"]) tokens.push(await me.token(SEARCH, { scope }));
  console.log(new Set(tokens).size, tokens.every((t) => claimsOf(t).client_id === me.id), claimsOf(tokens[1]).scope);
  await me.token(SEARCH, { scope: "no:such" }).catch((e) => console.log(e.code));
  me.close();`;

test("under mayfly run the token endpoint is asked with a new JWT-SVID each time", async () => {
  const asked = "3 true files:read\nSCOPE_NOT_ALLOWED\n";
  assert.equal(await run(ASKS, { MAYFLY_SERVER: dev.address }), asked);
  // Without its address, by its URL, with the roots of the system.
  assert.equal(await run(ASKS, { NODE_EXTRA_CA_CERTS: join(dev.folder, ".mayfly/https-ca.pem") }), asked);
});

test("nobody but the issuer hears the proof of an agent", async () => {
  const asks = `
    const me = await current();
    await me.token(SEARCH, { scope: "" }).catch((e) => console.log(e.code, e.hint.includes("MAYFLY_SERVER")));
    me.close();`;
  assert.equal(await run(asks, {}), "untrusted true\n");
  const impostor = await dev.spawn("researcher");
  const { key, cert } = impostor.tlsOptions("spiffe://dev.mayfly.test");
  let heard = 0;
  const server = createTlsServer({ key, cert }, (socket) => socket.on("data", () => heard++).on("error", () => undefined));
  server.on("tlsClientError", () => undefined).listen(0, "127.0.0.1");
  await once(server, "listening");
  assert.equal(await run(asks, { MAYFLY_SERVER: `127.0.0.1:${server.address().port}` }), "untrusted true\n");
  assert.equal(heard, 0);
  server.close();
  await impostor.end();
});

test("a token endpoint that is silent has its time", async () => {
  const { ask } = await import("../dist/oauth.js");
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = new URL(`https://127.0.0.1:${server.address().port}/oauth/token`);
  await assert.rejects(ask(url, "a.b.c", SEARCH, [], undefined, 0.3), { code: "unavailable" });
  server.close();
});
