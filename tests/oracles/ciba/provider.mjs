// A certified OpenID provider that asks people on a device of theirs (CIBA in poll mode), with its own rules for binding messages; and a
// receiver of webhooks that verifies them with the library of the standard.
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer as plain } from 'node:http';
import { createServer } from 'node:https';

import Provider, { errors } from 'oidc-provider';
import { Webhook } from 'standardwebhooks';

const [port, hooks] = process.argv.slice(2).map(Number);
const issuer = `https://127.0.0.1:${port}`;
const desk = {
  token_endpoint_auth_method: 'none',
  application_type: 'native',
  grant_types: ['authorization_code', 'refresh_token'],
  redirect_uris: ['http://127.0.0.1/callback'],
};
const provider = new Provider(issuer, {
  clients: [
    { client_id: 'agents', ...desk },
    {
      client_id: 'mayfly-asks',
      client_secret: readFileSync('client.secret', 'utf8').trim(),
      grant_types: ['urn:openid:params:grant-type:ciba'],
      response_types: [],
      redirect_uris: [],
      backchannel_token_delivery_mode: 'poll',
    },
  ],
  findAccount: (_, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
  features: {
    devInteractions: { enabled: true },
    ciba: {
      enabled: true,
      deliveryModes: ['poll'],
      processLoginHint: (_, hint) => hint,
      validateRequestContext: () => {},
      verifyUserCode: () => {},
      // What the person sees, and what they do: the oracle writes their answer.
      triggerAuthenticationDevice: async (ctx, request, account) => {
        const message = ctx.oidc.params.binding_message;
        appendFileSync('phone.log', `${JSON.stringify({ account: account.accountId, message })}\n`);
        setTimeout(async () => {
          const answer = readFileSync('answer', 'utf8').trim();
          if (answer === 'no') return provider.backchannelResult(request, new errors.AccessDenied('not me')).catch(console.error);
          const grant = new provider.Grant({ accountId: answer, clientId: request.clientId });
          grant.addOIDCScope('openid');
          await grant.save();
          await provider.backchannelResult(request, grant).catch(console.error);
        }, 2000);
      },
    },
  },
});
const tls = { key: readFileSync('idp.key'), cert: readFileSync('idp.pem') };
await new Promise((done) => createServer(tls, provider.callback()).listen(port, '127.0.0.1', done));

const webhook = new Webhook(readFileSync('hook.secret', 'utf8').trim().replace('whsec_', ''));
const receive = (request, response) => {
  let text = '';
  request.on('data', (part) => (text += part));
  request.on('end', () => {
    const told = webhook.verify(text, request.headers);
    for (const changed of [`${text} `, text.replace('10.00', '99.00').replace('20.00', '99.00')]) {
      let taken = true;
      try { webhook.verify(changed, request.headers); } catch { taken = false; }
      if (taken && changed !== text) throw new Error('a changed body was taken');
    }
    appendFileSync('hook.log', `${JSON.stringify(told)}\n`);
    response.writeHead(204).end();
  });
};
await new Promise((done) => plain(receive).listen(hooks, '127.0.0.1', done));
writeFileSync('provider-ready', '');
