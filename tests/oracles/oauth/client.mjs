// oauth4webapi: every grant, and what is said of the token, by a client and a resource server that nobody here wrote.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import * as oauth from "oauth4webapi";

const [mayfly, url, agent] = process.argv.slice(2);
const issuer = new URL(url);
const as = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { algorithm: "oauth2" }));
const client = { client_id: agent };
const mint = (audience) => execFileSync(mayfly, ["mint", "--as", "a1", "--audience", audience], { encoding: "utf8" }).trim();
// A JWT-SVID of its own for each request.
const bySvid = (_as, _client, body) => {
  body.set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe");
  body.set("client_assertion", mint(as.issuer));
};
const mail = "https://mail.example";
const resource = (token) => new Request(mail, { headers: { authorization: `Bearer ${token}` } });
const generic = async (grant, parameters) =>
  oauth.processGenericTokenEndpointResponse(as, client, await oauth.genericTokenEndpointRequest(as, client, bySvid, grant, parameters));

const own = await oauth.processClientCredentialsResponse(
  as,
  client,
  await oauth.clientCredentialsGrantRequest(as, client, bySvid, { resource: mail, scope: "mail:send" }),
);
assert.equal(own.token_type, "bearer");
assert.ok(own.expires_in > 0 && own.expires_in <= 300);
assert.equal(own.scope, "mail:send");

const exchanged = await generic("urn:ietf:params:oauth:grant-type:token-exchange", {
  subject_token: readFileSync("demo.jwt", "utf8").trim(),
  subject_token_type: "urn:ietf:params:oauth:token-type:id_token",
  resource: mail,
});
assert.equal(exchanged.issued_token_type, "urn:ietf:params:oauth:token-type:access_token");
// RFC 9068 4, with the checks of a resource server.
const claims = await oauth.validateJwtAccessToken(as, resource(exchanged.access_token), mail);
assert.equal(claims.sub, "dev|demo");
assert.equal(claims.client_id, agent);
assert.equal(claims.act.sub, agent);
assert.equal(claims.act.act.sub, "spiffe://dev.mayfly.test/workload/orchestrator");
await assert.rejects(oauth.validateJwtAccessToken(as, resource(exchanged.access_token), "https://files.example"));
await assert.rejects(oauth.validateJwtAccessToken(as, resource(mint(mail)), mail), "a JWT-SVID is no access token");

const refused = (error) => (e) => (e.error ?? e.cause?.[0]?.parameters?.error) === error;
await assert.rejects(generic("client_credentials", { resource: "https://bank.example" }), refused("invalid_target"));
await assert.rejects(generic("client_credentials", { resource: mail, scope: "everything" }), refused("invalid_scope"));
await assert.rejects(generic("password", { resource: mail }), refused("unsupported_grant_type"));

// The agent is not the audience, and the token ends when its client revokes it.
const ask = async (token) =>
  oauth.processIntrospectionResponse(as, client, await oauth.introspectionRequest(as, client, bySvid, token));
assert.deepEqual(await ask(own.access_token), { active: false });
await oauth.processRevocationResponse(await oauth.revocationRequest(as, client, bySvid, own.access_token));
await assert.rejects(
  generic("urn:ietf:params:oauth:grant-type:token-exchange", {
    subject_token: own.access_token,
    subject_token_type: "urn:ietf:params:oauth:token-type:access_token",
    resource: mail,
  }),
  refused("invalid_request"),
);

// RFC 7523: a JWT-SVID as what is granted, which proves the client too; and an ID-JAG, once, beside the client's own proof.
const BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const unproved = (_as, _client, body) => body.delete("client_id");
const bare = async (parameters) =>
  oauth.processGenericTokenEndpointResponse(as, client, await oauth.genericTokenEndpointRequest(as, client, unproved, BEARER, parameters));
assert.equal((await bare({ assertion: mint(as.issuer), resource: mail })).token_type, "bearer");
const idJag = (who) =>
  execFileSync(mayfly, ["token", "demo", "--id-jag", who, "--scope", "mail:send", "--resource", mail], { encoding: "utf8" }).trim();
const assertion = idJag(agent);
const consented = await generic(BEARER, { assertion, resource: mail });
assert.equal(consented.scope, "mail:send");
assert.equal((await oauth.validateJwtAccessToken(as, resource(consented.access_token), mail)).sub, "dev|demo");
for (const parameters of [
  { assertion, resource: mail },
  { assertion: idJag("spiffe://dev.mayfly.test/workload/guard"), resource: mail },
]) await assert.rejects(generic(BEARER, parameters), refused("invalid_grant"));
await assert.rejects(generic(BEARER, { assertion: idJag(agent), resource: "https://files.example" }), refused("invalid_target"));
await assert.rejects(bare({ assertion: idJag(agent), resource: mail }), refused("invalid_client"));

// RFC 9701: the same client verifies the signature, `typ`, issuer and audience of a signed answer.
const reader = { ...client, introspection_signed_response_alg: "ES256" };
const signed = await oauth.introspectionRequest(as, reader, bySvid, consented.access_token, { requestJwtResponse: true });
assert.equal(signed.headers.get("content-type"), "application/token-introspection+jwt");
assert.deepEqual(await oauth.processIntrospectionResponse(as, reader, signed), { active: false });
await oauth.validateApplicationLevelSignature(as, signed);

// RFC 9449: the nonce comes with the first refusal, and the token is bound to the key of the proof.
const keys = await oauth.generateKeyPair("ES256");
const dpop = oauth.DPoP(client, keys);
const bound = async () =>
  oauth.processClientCredentialsResponse(
    as,
    client,
    await oauth.clientCredentialsGrantRequest(as, client, bySvid, { resource: mail }, { DPoP: dpop }),
  );
const held = await bound().catch((e) => (oauth.isDPoPNonceError(e) ? bound() : Promise.reject(e)));
assert.equal(held.token_type, "dpop");
const [, payload] = held.access_token.split(".");
assert.equal(JSON.parse(Buffer.from(payload, "base64url")).cnf.jkt, await dpop.calculateThumbprint());
console.log("oauth4webapi agrees");
