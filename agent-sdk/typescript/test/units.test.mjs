// What needs no issuer: pauses, the cache, rules for peers, and that protos, codes and contract are those of everybody.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { bindingOf, bindingOfValue } from "../dist/binding.js";
import { Denied, EXPIRED, Expired, FINAL, Revoked, Unavailable } from "../dist/errors.js";
import { Identity, rule } from "../dist/identity.js";
import { detailsOf, errorOf } from "../dist/issuer.js";
import { endpoint, refused } from "../dist/oauth.js";
import { checkAddress } from "../dist/ticket.js";
import * as pace from "../dist/pace.js";
import { claimsOf, keyOf, LAST, MOST, scopesOf, Tokens } from "../dist/tokens.js";

const read = (path) => readFileSync(new URL(path, import.meta.url), "utf8");

test("the protos are those of the issuer", () => {
  for (const [folder, file] of [["proto", "mayfly/v1/mayfly.proto"], ["proto", "google/rpc/status.proto"], ["spiffe/proto", "workloadapi.proto"]]) {
    assert.equal(read(`../${folder}/${file}`), read(`../../../proto/${file}`), `${file}: copy it again`);
  }
});

test("final are the codes that the table of reasons calls final", () => {
  const rows = [...read("../../docs/reasons.md").matchAll(/^\| `([A-Z_]+)` \|.*\| ([a-z ]*) \|$/gm)];
  assert.ok(rows.length > 100);
  assert.deepEqual(new Set(rows.filter(([, , final]) => final.trim() === "final").map(([, code]) => code)), FINAL);
  assert.ok([...EXPIRED].every((code) => FINAL.has(code)));
});

test("a status whose details cannot be read is a denial and no end", () => {
  for (const bytes of [undefined, "text", Buffer.alloc(0), Buffer.from([0xff]), Buffer.from("1a05", "hex"), Buffer.alloc(64, 0xff)]) {
    assert.deepEqual(detailsOf(bytes), { reason: "", retryAfter: undefined, said: new Map() });
  }
  assert.equal(errorOf({ code: 16, details: "x" }).code, "UNAUTHENTICATED");
  assert.equal(errorOf({ code: 14, details: "x" }).transient, true);
  assert.equal(errorOf(new Error("x")).transient, true);
});

test("a renewal leaves time to try again, and nothing spins", () => {
  for (const life of [20, 900]) {
    assert.ok(Math.abs(pace.renewal(life, 0) - 0.3 * life) < 1e-9 && Math.abs(pace.renewal(life, 1) - 0.7 * life) < 1e-9);
    let tries = 0;
    for (let left = 0.3 * life; (left -= pace.again(left, 1)) > 0; ) tries++;
    assert.ok(tries >= 3);
  }
  assert.ok(pace.again(0, 0) >= pace.FIRST / 2 && pace.back(0, 0) >= pace.FIRST / 2 && pace.back(86400, 1) <= pace.LONGEST);
  assert.deepEqual([0, 1, 2, 6, 7, 1e9].map((failures) => pace.backoff(0.05, 5, failures, 1)), [0.05, 0.1, 0.2, 3.2, 5, 5]);
});

test("pauses and limits are those of the contract", () => {
  const page = read("../../docs/contract.md");
  const seen = new Set();
  for (const [, name, ...numbers] of page.matchAll(/^\| `(\w+)` \| ([0-9.]+) \| ([0-9.]+) \| ([0-9.]+) \|$/gm)) {
    const [given, ...expected] = numbers.map(Number);
    seen.add(name);
    expected.forEach((want, chance) => assert.ok(Math.abs(pace[name](given, chance) - want) < 1e-9, `${name} ${given} ${chance}`));
  }
  assert.deepEqual(seen, new Set(["renewal", "again", "back", "calls", "streams"]));
  const limits = [...page.matchAll(/^\| `(\w+)` \| ([0-9.]+) \|$/gm)].map(([, name, is]) => [name, Number(is)]);
  const { LOOK: look, STOOD: stood, PATIENCE: patience, TRIES: tries } = pace;
  assert.deepEqual(Object.fromEntries(limits), { look, stood, patience, tries, tokens: MOST, last: LAST });
});

test("a token is given out until half and kept for need until its end", () => {
  let now = 1000;
  const tokens = new Tokens(() => now);
  tokens.put(keyOf("a"), "one", 1300);
  for (const [at, fresh, holding] of [[1149, "one", "one"], [1150, undefined, "one"], [1294, undefined, "one"], [1295, undefined, undefined]]) {
    now = at;
    assert.deepEqual([tokens.fresh(keyOf("a")), tokens.holding(keyOf("a"))], [fresh, holding], String(at));
  }
  now = 1000;
  for (let n = 0; n < 200; n++) tokens.put(keyOf(String(n)), String(n), 1100 + n);
  assert.equal(["a", ...Array.from({ length: 200 }, (_, n) => String(n))].filter((key) => tokens.fresh(keyOf(key))).length, MOST);
  tokens.clear();
  assert.equal(tokens.fresh(keyOf("199")), undefined);
  // {"jti":"1","iat":1,"single_use":true}, and the same with false.
  tokens.put(keyOf("once"), "eyJhbGciOiJFUzI1NiJ9.eyJqdGkiOiIxIiwiaWF0IjoxLCJzaW5nbGVfdXNlIjp0cnVlfQ.c2ln", 1300);
  tokens.put(keyOf("often"), "eyJhbGciOiJFUzI1NiJ9.eyJqdGkiOiIxIiwiaWF0IjoxLCJzaW5nbGVfdXNlIjpmYWxzZX0.c2ln", 1300);
  assert.equal(tokens.holding(keyOf("once")), undefined, "one for a single use is not kept");
  assert.ok(tokens.fresh(keyOf("often")));
});

test("callers that wait for one token share it, but one for a single use", async () => {
  for (const [text, minted] of [["eyJhbGciOiJFUzI1NiJ9.eyJqdGkiOiIxIiwiaWF0IjoxLCJzaW5nbGVfdXNlIjpmYWxzZX0.c2ln", 1], ["eyJhbGciOiJFUzI1NiJ9.eyJqdGkiOiIxIiwiaWF0IjoxLCJzaW5nbGVfdXNlIjp0cnVlfQ.c2ln", 3]]) {
    let asked = 0;
    const keeper = {
      tokens: new Tokens(),
      current: () => ({}),
      mint: async () => (asked++, await new Promise((done) => setTimeout(done, 10)), { text, expiresAt: Date.now() / 1000 + 300 }),
    };
    const me = new Identity(keeper);
    assert.deepEqual(await Promise.all([me.token("a"), me.token("a"), me.token("a")]), [text, text, text]);
    assert.equal(asked, minted);
  }
});

test("a rule for a peer never admits more than it says", () => {
  const own = "own.example";
  const exact = rule("spiffe://own.example/agent/a/1", own);
  assert.ok(exact("spiffe://own.example/agent/a/1") && !exact("spiffe://own.example/agent/a/10"));
  const below = rule("spiffe://own.example/agent/a/", own);
  assert.ok(below("spiffe://own.example/agent/a/1") && !below("spiffe://own.example/agent/ab/1"));
  const everybody = rule("spiffe://own.example", own);
  assert.ok(everybody("spiffe://own.example/x") && !everybody("spiffe://own.example.evil/x"));
  assert.ok(!rule(() => true, own)("spiffe://other.example/x"));
});

test("an address is a host and a port", () => {
  for (const text of ["localhost:1", "issuer_1.internal:8443", "127.0.0.1:65535", "[::1]:8443"]) assert.ok(checkAddress(text).port);
  for (const text of ["", ":", "localhost", "localhost:0", "localhost:08443", "localhost:65536", "::1:8443", "[::1]", "[localhost]:1",
    "https://localhost:1", "u@localhost:1", "local host:1", "localhost:1/", "a..b:1", "localhost:1\n"]) {
    assert.throws(() => checkAddress(text), { code: "address" }, text);
  }
});

test("a certificate whose binding cannot be read is an error and never half an answer", () => {
  for (const bytes of [Buffer.alloc(0), Buffer.from([0x30, 0x80]), Buffer.from([0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), Buffer.alloc(100, 0x30)]) {
    assert.throws(() => bindingOf(bytes), { code: "binding" });
  }
});

test("the binding is read as the shared vectors have it", () => {
  const vectors = (name) => JSON.parse(read(`../../verify/tests/vectors/${name}.json`)).filter(({ der }) => der !== undefined);
  const [accepted, refused] = [vectors("accepted"), vectors("refused")];
  assert.ok(accepted.length > 10 && refused.length > 50);
  for (const { name, der, claim } of accepted) {
    const { leaseExpiresAt, ...read } = bindingOfValue(Buffer.from(der, "hex"));
    const { delegation_id: delegationId, user, chain, mode, scopes, lease_expires_at: lease } = claim;
    assert.deepEqual(read, { delegationId, user, chain, mode, scopes }, name);
    assert.equal(leaseExpiresAt.getTime(), Math.min(lease * 1000, 8.64e15), name);
  }
  for (const { name, der } of refused) assert.throws(() => bindingOfValue(Buffer.from(der, "hex")), { code: "binding" }, name);
});

test("scopes have one spelling, no two keys are one, and a renewal forgets access tokens", () => {
  assert.deepEqual(scopesOf(" b a  b "), ["a", "b"]);
  assert.deepEqual([scopesOf(""), scopesOf([]), scopesOf(undefined)], [[], [], undefined]);
  const keys = [keyOf("a"), keyOf("a", []), keyOf("a", ["b"]), keyOf("a", ["b", "c"]), keyOf("a", ["b c"]), keyOf('["a"]'), keyOf('a","b')];
  assert.equal(new Set(keys).size, keys.length);
  const tokens = new Tokens(() => 0);
  tokens.put(keyOf("a"), "svid", 100);
  tokens.put(keyOf("a", []), "access", 100);
  tokens.forgetAccess();
  assert.deepEqual([tokens.fresh(keyOf("a")), tokens.fresh(keyOf("a", []))], ["svid", undefined]);
  for (const text of ["", "a", "a.b", "a.!.c", "a.W10.c", "a.e30", "a.bnVsbA.c"]) assert.deepEqual(claimsOf(text), {}, text);
});

test("a refusal of the token endpoint is read, and a URL that is none is refused", () => {
  for (const [status, error, description, retry, kind, code, after] of [
    [400, "invalid_scope", "SCOPE_NOT_ALLOWED: ask for less", undefined, Denied, "SCOPE_NOT_ALLOWED", undefined],
    [400, "invalid_request", "`grant_type` is missing", undefined, Denied, "invalid_request", undefined],
    [401, "invalid_client", "AGENT_REVOKED: it was revoked", undefined, Revoked, "AGENT_REVOKED", undefined],
    [401, "invalid_client", "AGENT_EXPIRED: its lease has ended", undefined, Expired, "AGENT_EXPIRED", undefined],
    [401, "invalid_client", "CREDENTIAL_EXPIRED: the JWT-SVID has expired", undefined, Denied, "CREDENTIAL_EXPIRED", undefined],
    [429, "temporarily_unavailable", "LIMIT: slower", "3", Denied, "LIMIT", 3],
    [503, "temporarily_unavailable", "", "-1", Unavailable, "unavailable", undefined],
  ]) {
    const e = refused(status, error, description, retry);
    assert.deepEqual([e.constructor, e.code, e.retryAfter], [kind, code, after]);
  }
  for (const bad of ["", "http://issuer.example", "issuer", "https://", "https://issuer.example?x=1", "spiffe://dev.mayfly.test"]) {
    assert.throws(() => endpoint(bad), { code: "answer" }, bad);
  }
  assert.equal(endpoint("https://issuer.example/a", "[::1]:1").href, "https://[::1]:1/a/oauth/token");
});
