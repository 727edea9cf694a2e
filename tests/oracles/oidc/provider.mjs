// A certified OpenID provider, and a user who signs in through a real authorization-code flow with PKCE.
// Writes id.jwt (ID token), at.jwt (RFC 9068 access token) and other.jwt (ID token of another client), then serves keys.
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';

import Provider from 'oidc-provider';

const port = Number(process.argv[2]);
const issuer = `https://127.0.0.1:${port}`;
const redirect = 'https://client.example/back';
const client = (client_id) => ({
  client_id,
  token_endpoint_auth_method: 'none',
  application_type: 'native',
  redirect_uris: [redirect],
});
const provider = new Provider(issuer, {
  clients: [client('agents'), client('other')],
  features: {
    devInteractions: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: () => ({ scope: 'openid', audience: 'agents', accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } } }),
    },
  },
});
const tls = { key: readFileSync('idp.key'), cert: readFileSync('idp.pem') };
await new Promise((done) => createServer(tls, provider.callback()).listen(port, '127.0.0.1', done));

const cookies = new Map();
async function go(url, options = {}) {
  const headers = { cookie: [...cookies].map(([k, v]) => `${k}=${v}`).join('; '), ...options.headers };
  const answer = await fetch(url, { redirect: 'manual', ...options, headers });
  for (const line of answer.headers.getSetCookie()) {
    const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
    if (value) cookies.set(name, value);
    else cookies.delete(name);
  }
  return answer;
}
const form = (fields) => ({
  method: 'POST',
  headers: { 'content-type': 'application/x-www-form-urlencoded' },
  body: new URLSearchParams(fields).toString(),
});

async function signIn(client_id, resource) {
  const verifier = randomBytes(32).toString('base64url');
  const query = new URLSearchParams({
    client_id, response_type: 'code', scope: 'openid', redirect_uri: redirect, state: 's', nonce: 'n',
    code_challenge: createHash('sha256').update(verifier).digest('base64url'), code_challenge_method: 'S256',
    ...(resource && { resource }),
  });
  let at = `${issuer}/auth?${query}`;
  for (let step = 0; step < 20; step += 1) {
    const answer = await go(at);
    if (answer.status === 200) {
      const page = await answer.text();
      const prompt = /name="prompt" value="(\w+)"/.exec(page)[1];
      const posted = await go(at, form(prompt === 'login' ? { prompt, login: 'alice', password: 'x' } : { prompt }));
      at = new URL(posted.headers.get('location'), issuer).href;
    } else {
      at = new URL(answer.headers.get('location'), issuer).href;
    }
    if (at.startsWith(redirect)) {
      const code = new URL(at).searchParams.get('code');
      const fields = { grant_type: 'authorization_code', code, client_id, redirect_uri: redirect, code_verifier: verifier };
      const answer = await go(`${issuer}/token`, form({ ...fields, ...(resource && { resource }) }));
      const tokens = await answer.json();
      if (!tokens.id_token) throw new Error(JSON.stringify(tokens));
      return tokens;
    }
  }
  throw new Error('the flow did not end');
}

const agents = await signIn('agents', 'https://mayfly.example');
writeFileSync('id.jwt', agents.id_token);
writeFileSync('at.jwt', agents.access_token);
writeFileSync('other.jwt', (await signIn('other')).id_token);
writeFileSync('signed-in', 'yes');
