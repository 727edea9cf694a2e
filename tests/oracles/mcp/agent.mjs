// An agent that lists the tools of an MCP server: agent.mjs URL. In the conformance suite its assertions are made with the suite's key,
// because its authorization server knows no other; otherwise it is the agent in the folder AS, and ISSUER is the URL of the issuer.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { current, OAuthProvider } from "@mayfly/agent";
import { Client, CrossAppAccessProvider, requestJwtAuthorizationGrant, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { importPKCS8, SignJWT } from "jose";

const url = process.argv[2];
const context = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? "{}");
const scenario = process.env.MCP_CONFORMANCE_SCENARIO;

// A client of the suite's authorization server.
const ofSuite = {
  id: context.client_id,
  ended: new AbortController().signal,
  assertion: async (audience) => {
    if (context.valid_jwt) return context.valid_jwt;
    const alg = context.signing_algorithm;
    const signed = new SignJWT({}).setProtectedHeader({ alg }).setIssuer(context.client_id).setSubject(context.client_id);
    const whole = signed.setAudience(audience).setExpirationTime("1m").setJti(crypto.randomUUID());
    return whole.sign(await importPKCS8(context.private_key_pem, alg));
  },
};

// What the MCP server says.
async function issuerOf() {
  const { origin, pathname } = new URL(url);
  const metadata = await (await fetch(`${origin}/.well-known/oauth-protected-resource${pathname}`)).json();
  return metadata.authorization_servers[0];
}

// The enterprise's flow as the SDK has it, because this authorization server knows its clients by a secret alone.
const byTheProvider = (expectedIssuer) =>
  new CrossAppAccessProvider({
    clientId: context.client_id,
    clientSecret: context.client_secret,
    expectedIssuer,
    assertion: async ({ authorizationServerUrl, resourceUrl, fetchFn }) => {
      const asked = { tokenEndpoint: context.idp_token_endpoint, idToken: context.idp_id_token, clientId: context.idp_client_id };
      return (await requestJwtAuthorizationGrant({ ...asked, audience: authorizationServerUrl, resource: resourceUrl, fetchFn })).jwtAuthGrant;
    },
  });

let me;
let authProvider;
if (scenario === "auth/enterprise-managed-authorization") authProvider = byTheProvider(await issuerOf());
else if (scenario) authProvider = new OAuthProvider(ofSuite, { issuer: await issuerOf(), federated: scenario === "auth/wif-jwt-bearer" });
else {
  me = await current(process.env.AS);
  const { GRANT: grant, ISSUER: issuer } = process.env;
  const idJag = async () => readFileSync(process.env.ID_JAG, "utf8").trim();
  authProvider = new OAuthProvider(me, { issuer, federated: grant === "federated", ...(grant === "id_jag" && { idJag }) });
}
const client = new Client({ name: "agent", version: "1.0.0" });
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
try {
  await client.connect(new StreamableHTTPClientTransport(new URL(url), { authProvider }));
  const { tools } = await client.listTools();
  for (let i = 0; i < 2 && !scenario; i++) {
    const { content } = await client.callTool({ name: tools[0].name, arguments: { topic: "ants" } });
    console.log(content[0].text);
    await lines.next();
  }
} finally {
  await client.close().catch(() => {});
  me?.close();
  process.stdin.destroy();
}
