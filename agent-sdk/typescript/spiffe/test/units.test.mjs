// What needs no Workload API: IDs, addresses, certificates, tokens, pauses. Each bad input is an error of this package and nothing else.
import assert from "node:assert/strict";
import { generateKeyPairSync, sign } from "node:crypto";
import { test } from "node:test";
import { JwtBundle, parseEndpoint, parseId, parseTrustDomain, reconnectDelay, ruleOf, SpiffeError, splitDer, validateJwtSvid, WorkloadApi, X509Bundle, X509Svid } from "../dist/index.js";

const throwsOurs = (work, code, what) => assert.throws(work, (e) => e instanceof SpiffeError && e.code === code, what);

test("a SPIFFE ID has one spelling", () => {
  assert.deepEqual(parseId("spiffe://td.example/a/b"), { trustDomain: "td.example", path: "/a/b" });
  assert.deepEqual([parseTrustDomain("spiffe://td.example"), parseTrustDomain("td.example")], ["td.example", "td.example"]);
  for (const bad of ["", "td.example/x", "spiffe://TD.example/x", "spiffe://td.example/", "spiffe://td.example/..", "spiffe://td.example/x\n", "spiffe://td.example:1/x"]) {
    throwsOurs(() => parseId(bad), "spiffe_id", bad);
  }
  throwsOurs(() => parseTrustDomain("spiffe://td.example/x"), "spiffe_id");
});

test("an address is a socket or an IP address with a port", () => {
  assert.equal(parseEndpoint("unix:///run/spire/agent.sock"), "unix:/run/spire/agent.sock");
  assert.equal(parseEndpoint("tcp://127.0.0.1:8080"), "ipv4:127.0.0.1:8080");
  for (const bad of ["", "/run/agent.sock", "unix://run/agent.sock", "unix:///", "unix:////x", "unix:///x?y", "tcp://localhost:1", "tcp://127.0.0.1", "tcp://127.0.0.1:0", "tcp://127.0.0.1:65536", "http://127.0.0.1:1"]) {
    throwsOurs(() => parseEndpoint(bad), "endpoint", bad);
  }
  throwsOurs(() => new WorkloadApi(""), "endpoint");
});

test("what is no certificate, key or bundle is refused, and the key is not repeated", () => {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const key = privateKey.export({ type: "pkcs8", format: "der" });
  for (const bad of [[], [0x30], [0x30, 0x80], [0x30, 0x84, 0xff, 0xff, 0xff, 0xff], [0x30, 0x81, 0x01, 0x00], [0x31, 0], [0x30, 0], Array(4096).fill(0x30)]) {
    throwsOurs(() => X509Svid.parse(Buffer.from(bad), key), "certificate", String(bad));
  }
  throwsOurs(() => X509Bundle.parse("td.example", Buffer.from("x")), "certificate");
  throwsOurs(() => splitDer(Buffer.alloc(2002).fill(Buffer.from([0x30, 0]))), "certificate");
  for (const bad of [Buffer.alloc(0), Buffer.from("secret"), key.subarray(1)]) {
    assert.throws(() => X509Svid.parse(Buffer.alloc(0), bad), (e) => e instanceof SpiffeError && !e.message.includes("secret"));
  }
});

const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
const bundle = JwtBundle.parse("td.example", JSON.stringify({ keys: [{ ...publicKey.export({ format: "jwk" }), kid: "1" }] }));
const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
const token = (claims, header = {}) => {
  const text = `${encode({ alg: "ES256", kid: "1", ...header })}.${encode({ sub: "spiffe://td.example/x", aud: "a", exp: 2000, ...claims })}`;
  return `${text}.${sign("sha256", Buffer.from(text), { key: privateKey, dsaEncoding: "ieee-p1363" }).toString("base64url")}`;
};
const validate = (text, now = 1000) => validateJwtSvid(text, new Map([["td.example", bundle]]), ["a"], now);

test("a token counts for its audience, until it expires, by the key of its own trust domain", () => {
  assert.equal(validate(token()).spiffeId, "spiffe://td.example/x");
  assert.equal(validate(token(), 1999.9).expiresAt.getTime(), 2_000_000);
  throwsOurs(() => validate(token(), 2000), "expired");
  assert.ok(validate(token({ nbf: 1060 })));
  for (const [claims, header] of [[{ nbf: 1061 }], [{ aud: "b" }], [{ aud: [] }], [{ aud: [1, "a"] }], [{ exp: "2000" }], [{ exp: null }], [{ sub: "spiffe://other.example/x" }],
    [{}, { kid: "2" }], [{}, { kid: undefined }], [{}, { alg: "none" }], [{}, { alg: "HS256" }], [{}, { alg: "ES384" }], [{}, { crit: ["x"] }], [{}, { typ: "at+jwt" }]]) {
    throwsOurs(() => validate(token(claims, header)), "token", JSON.stringify([claims, header]));
  }
  const good = token();
  for (const bad of ["", "a.b.c", `${good}=`, `${good}\n`, `${good.slice(0, -1)}`, good.toUpperCase(), `${good}.x`, "x".repeat(70_000)]) throwsOurs(() => validate(bad), "token", bad);
});

test("a JWT bundle is a set of keys with ids", () => {
  for (const bad of ["", "[]", "{}", '{"keys":{}}', '{"keys":[{}]}', '{"keys":[{"kid":"1"}]}', '{"keys":[{"kid":"1","kty":"EC"}]}', '{"keys":[null]}']) {
    throwsOurs(() => JwtBundle.parse("td.example", bad), "bundle", bad);
  }
  assert.equal(JwtBundle.parse("td.example", '{"keys":[]}').authorities.size, 0);
});

test("a rule for a peer never admits more than it says", () => {
  const allows = (peer, id) => ruleOf(peer, "td.example").allows(id);
  assert.ok(allows("spiffe://td.example/a", "spiffe://td.example/a") && !allows("spiffe://td.example/a", "spiffe://td.example/a/b"));
  assert.ok(allows("spiffe://td.example/a/", "spiffe://td.example/a/b") && !allows("spiffe://td.example/a/", "spiffe://td.example/ab"));
  assert.equal(ruleOf("spiffe://other.example", "td.example").trustDomain, "other.example");
  for (const bad of ["", "*", "td.example", "https://td.example/x"]) throwsOurs(() => ruleOf(bad, "td.example"), "spiffe_id", bad);
});

test("a pause before a stream is opened again grows to five seconds", () => {
  assert.deepEqual([0, 1, 7, 1000].map((failures) => reconnectDelay(failures, 1)), [0.05, 0.1, 5, 5]);
  assert.equal(reconnectDelay(0, 0), 0.025);
});
