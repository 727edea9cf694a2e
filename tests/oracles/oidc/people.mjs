// A certified OpenID provider for people who sign in with `mayfly login`: code with PKCE back to loopback, devices, and refresh.
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';

import Provider from 'oidc-provider';

const port = Number(process.argv[2]);
const issuer = `https://127.0.0.1:${port}`;
const client = (client_id) => ({
  client_id,
  token_endpoint_auth_method: 'none',
  application_type: 'native',
  grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
  // RFC 8252 7.3: any port of loopback.
  redirect_uris: ['http://127.0.0.1/callback'],
});
const provider = new Provider(issuer, {
  clients: [client('operators'), client('mine')],
  claims: { openid: ['sub', 'groups'] },
  conformIdTokenClaims: false,
  findAccount: (_, sub) => ({ accountId: sub, claims: () => ({ sub, groups: sub === 'alice' ? ['staff', 'mayfly'] : ['staff'] }) }),
  // A token that is always due: every command refreshes it.
  ttl: { IdToken: Number(process.argv[3] ?? 600) },
  features: { devInteractions: { enabled: true }, deviceFlow: { enabled: true } },
});
const tls = { key: readFileSync('idp.key'), cert: readFileSync('idp.pem') };
await new Promise((done) => createServer(tls, provider.callback()).listen(port, '127.0.0.1', done));
writeFileSync('provider-ready', '');
