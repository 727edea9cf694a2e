// A program beside a SPIRE agent: it is refused until it is registered, then has both kinds of SVID, over three rotations, and mTLS.
import assert from "node:assert/strict";
import { once } from "node:events";
import https from "node:https";
import { JwtSource, WorkloadApi, X509Source } from "@mayfly/spiffe";

const id = "spiffe://spire.test/first";
const api = new WorkloadApi();
let refused = 0;
const done = new AbortController();
const limit = setTimeout(() => process.exit(1), 120_000);
await api.watchX509Context({ update: () => done.abort(), error: (e) => (assert.equal(e.code, "denied"), refused++) }, done.signal);
assert.ok(refused > 0);
console.log("-- SPIRE: refused until it is registered, and served then");

const source = await X509Source.open({ api });
assert.equal(source.svid.spiffeId, id);
assert.equal(source.svid.hint, "one");
const server = https.createServer(source.serverOptions(), (request, response) => response.end(source.peerOf(request.socket, id)));
source.follow(server);
server.listen(0, "127.0.0.1");
await once(server, "listening");
const get = async (peer) => {
  const [response] = await once(https.get({ host: "127.0.0.1", port: server.address().port, agent: false, ...source.tlsOptions(peer) }), "response");
  let text = "";
  for await (const part of response) text += part;
  return [text, response.socket.getPeerCertificate().serialNumber];
};
const serials = new Set();
while (serials.size < 4) {
  const [said, serial] = await get(id);
  assert.equal(said, id);
  serials.add(serial);
  await new Promise((resolve) => setTimeout(resolve, 50));
}
await assert.rejects(get("spiffe://spire.test/other"), /another was asked for/);
console.log("-- SPIRE: mTLS by SPIFFE ID, over three rotations, and no call failed");

const jwt = await JwtSource.open({ api });
const token = await jwt.fetch("https://search.example");
assert.equal(jwt.validate(token.token, "https://search.example").spiffeId, id);
assert.throws(() => jwt.validate(token.token, "https://other.example"), { code: "token" });
const said = await api.validateJwtSvid(token.token, "https://search.example");
assert.deepEqual([said.spiffeId, said.claims.sub], [id, id]);
await assert.rejects(api.validateJwtSvid(token.token, "https://other.example"), { code: "refused" });
await assert.rejects(api.fetchJwtSvid("a", { spiffeId: "spiffe://spire.test/other" }));
assert.ok((await api.fetchX509Bundles()).has("spire.test") && (await api.fetchJwtBundles()).has("spire.test"));
console.log("-- SPIRE: a JWT-SVID that both verify");
clearTimeout(limit);
server.closeAllConnections();
server.close();
source.close();
jwt.close();
api.close();
