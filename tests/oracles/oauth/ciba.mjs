// openid-client: an agent asks a person by the backchannel and polls until there is an answer, by a client that nobody here wrote.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import * as client from "openid-client";

const [mayfly, url, agent] = process.argv.slice(2);
const run = (...args) => execFileSync(mayfly, args, { encoding: "utf8" }).trim();
// A JWT-SVID of its own for each request.
const bySvid = (as, _client, body) => {
  body.set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe");
  body.set("client_assertion", run("mint", "--as", "a1", "--audience", as.issuer));
};
const config = await client.discovery(new URL(url), agent, undefined, bySvid, { algorithm: "oauth2" });
assert.deepEqual(config.serverMetadata().backchannel_token_delivery_modes_supported, ["poll", "ping"]);

const details = [{ type: "payment", amount: "10.00", currency: "EUR" }];
const ask = (amount, more = {}) =>
  client.initiateBackchannelAuthentication(config, {
    scope: "openid",
    login_hint: "dev|demo",
    resource: "https://bank.example",
    binding_message: "invoice-7",
    authorization_details: JSON.stringify([{ ...details[0], amount }]),
    ...more,
  });

const asked = await ask("10.00");
assert.equal(asked.interval, 5);
assert.ok(asked.expires_in > 0 && asked.expires_in <= 600);
const polling = client.pollBackchannelAuthenticationGrant(config, asked);
// The person answers while the client polls.
setTimeout(() => run("approve", asked.auth_req_id, "--user-token", "me.jwt"), 7000);
const token = await polling;
assert.equal(token.token_type, "bearer");
assert.deepEqual(token.authorization_details, details);
const claims = JSON.parse(Buffer.from(token.access_token.split(".")[1], "base64url"));
assert.equal(claims.approval_id, asked.auth_req_id);
assert.equal(claims.approved_by.sub, "demo");
assert.equal(claims.acr, "ciba");
assert.equal(claims.aud, "https://bank.example");

const refused = (error) => (e) => e.error === error;
await assert.rejects(client.pollBackchannelAuthenticationGrant(config, asked), refused("invalid_grant"), "used once");
const denied = await ask("11.00");
run("deny", denied.auth_req_id, "--user-token", "me.jwt");
await assert.rejects(client.pollBackchannelAuthenticationGrant(config, denied), refused("access_denied"));
const late = await ask("12.00", { requested_expiry: "1" });
// This client stops polling by itself when the request has expired, so the last question is asked without its loop.
await assert.rejects(client.pollBackchannelAuthenticationGrant(config, late), (e) => e.code === "OAUTH_TIMEOUT");
const last = client.genericGrantRequest(config, "urn:openid:params:grant-type:ciba", { auth_req_id: late.auth_req_id });
await assert.rejects(last, refused("expired_token"));
await assert.rejects(ask("1", { login_hint: "dev|guest" }), refused("unknown_user_id"));
await assert.rejects(ask("1", { binding_message: "two\nlines" }), refused("invalid_binding_message"));
await assert.rejects(ask("-1"), refused("invalid_authorization_details"));
console.log("openid-client agrees");
