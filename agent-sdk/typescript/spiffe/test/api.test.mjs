// Against a Workload API of the test, which says what it is told to, and against a real one: that of `mayfly run` (with the binary of $MAYFLY).
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import https from "node:https";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { JwtSource, SpiffeError, WorkloadApi, X509Source } from "../dist/index.js";

const proto = fileURLToPath(new URL("../proto/workloadapi.proto", import.meta.url));
const { service } = grpc.loadPackageDefinition(loadSync(proto, { keepCase: true })).SpiffeWorkloadAPI;
const folder = mkdtempSync(join(tmpdir(), "spiffe-"));
const ID = "spiffe://td.example/x";
const pem = (name) => readFileSync(join(folder, name), "utf8");
const der = (name) => Buffer.from(pem(name).replace(/-----[A-Z ]+-----|\n/g, ""), "base64");

before(() => {
  const openssl = (...args) => execFileSync("openssl", args, { cwd: folder, stdio: ["ignore", "pipe", "pipe"] });
  const ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  openssl("req", "-x509", ...ec, "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem", "-addext", "keyUsage=critical,keyCertSign");
  for (const [name, id] of [["one", ID], ["two", `${ID}/y`], ["other", "spiffe://other.example/x"]]) {
    openssl("req", "-x509", ...ec, "-CA", "ca.pem", "-CAkey", "ca.key", "-subj", `/CN=${name}`, "-keyout", `${name}.key`, "-out", `${name}.pem`, "-days", "1",
      "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "keyUsage=critical,digitalSignature", "-addext", `subjectAltName=URI:${id}`);
  }
});
after(() => rmSync(folder, { recursive: true }));

const svid = (name, spiffe_id, more = {}) => ({ spiffe_id, x509_svid: der(`${name}.pem`), x509_svid_key: der(`${name}.key`), bundle: der("ca.pem"), ...more });

/** A Workload API; `calls` are what it does for each method. */
async function serve(t, calls) {
  const server = new grpc.Server();
  const header = (call, refuse) => call.metadata.get("workload.spiffe.io")[0] === "true" || refuse({ code: grpc.status.INVALID_ARGUMENT, details: "no header" });
  const nothing = (call) => call.emit("error", { code: grpc.status.UNIMPLEMENTED, details: "" });
  const stream = (act) => (call) => header(call, (e) => call.emit("error", e)) === true && act(call);
  server.addService(service, {
    FetchX509SVID: stream(calls.x509 ?? nothing),
    FetchX509Bundles: stream(calls.bundles ?? nothing),
    FetchJWTBundles: stream(calls.jwtBundles ?? nothing),
    FetchJWTSVID: (call, answer) => header(call, answer) === true && calls.jwt(call.request, answer),
    ValidateJWTSVID: (call, answer) => header(call, answer) === true && calls.validate(call.request, answer),
  });
  const port = await new Promise((resolve, reject) => server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (e, at) => (e ? reject(e) : resolve(at))));
  const api = new WorkloadApi(`tcp://127.0.0.1:${port}`, { timeout: 2 });
  const stop = () => (api.close(), server.forceShutdown());
  t.after(stop);
  return { api, stop, address: `tcp://127.0.0.1:${port}` };
}
const ours = (code) => (e) => e instanceof SpiffeError && e.code === code;

test("an answer that lacks something, or contradicts itself, is no answer", { timeout: 30_000 }, async (t) => {
  let next;
  const { api, stop } = await serve(t, { x509: (call) => call.write(next), bundles: (call) => call.write({}), jwtBundles: (call) => call.write({ bundles: { "td.example": Buffer.from("x") } }) });
  for (const [answer, code] of [
    [{}, "answer"], [{ svids: [svid("one", "spiffe://td.example/other")] }, "answer"], [{ svids: [svid("one", ID, { bundle: Buffer.alloc(0) })] }, "answer"],
    [{ svids: [svid("one", ID, { x509_svid_key: der("two.key") })] }, "key"], [{ svids: [svid("one", ID, { bundle: Buffer.from("x") })] }, "certificate"],
    [{ svids: [svid("one", ID)], federated_bundles: { "no/domain": der("ca.pem") } }, "spiffe_id"],
  ]) {
    next = answer;
    await assert.rejects(api.fetchX509Context(), ours(code));
  }
  await assert.rejects(api.fetchX509Bundles(), ours("answer"));
  await assert.rejects(api.fetchJwtBundles(), ours("bundle"));
  next = { svids: [svid("one", ID, { hint: "h" }), svid("two", `${ID}/y`, { hint: "h" }), svid("two", `${ID}/y`)], federated_bundles: { "spiffe://other.example": der("ca.pem") } };
  const { svids, bundles } = await api.fetchX509Context();
  assert.deepEqual(svids.map(({ spiffeId }) => spiffeId), [ID, `${ID}/y`], "of two with one hint the first counts");
  assert.deepEqual([...bundles.keys()].sort(), ["other.example", "td.example"]);
  stop();
});

test("a server that is silent, away or closed has its time", { timeout: 30_000 }, async (t) => {
  const { api, stop } = await serve(t, { x509: () => undefined, jwt: () => undefined });
  const from = Date.now();
  await assert.rejects(api.fetchX509Context(), ours("unavailable"));
  await assert.rejects(api.fetchJwtSvid("a"), ours("unavailable"));
  await assert.rejects(X509Source.open({ api, patience: 0.3 }), ours("unavailable"));
  assert.ok(Date.now() - from < 10_000);
  stop();
  await assert.rejects(api.fetchX509Context(), ours("closed"));
  await assert.rejects(X509Source.open({ api: `unix://${folder}/none.sock`, patience: 0.3 }), ours("unavailable"));
});

test("a stream is opened again, but not where the question itself is refused", { timeout: 30_000 }, async (t) => {
  let opened = 0;
  const steps = [
    (call) => call.emit("error", { code: grpc.status.PERMISSION_DENIED, details: "no identity issued" }),
    (call) => (call.write({}), call.write({ svids: [svid("one", ID)] }), call.end()),
    (call) => call.emit("error", { code: grpc.status.UNAVAILABLE, details: "" }),
    (call) => call.write({ svids: [svid("two", `${ID}/y`)] }),
  ];
  const { api, stop } = await serve(t, { x509: (call) => steps[Math.min(opened++, 3)](call) });
  const [seen, errors] = [[], []];
  const done = new AbortController();
  await api.watchX509Context({ update: ({ svids }) => (seen.push(svids[0].spiffeId), seen.length === 2 && done.abort()), error: (e) => errors.push(e.code) }, done.signal);
  assert.deepEqual([seen, errors], [[ID, `${ID}/y`], ["denied", "answer", "unavailable"]]);
  await assert.rejects(api.watchX509Bundles({ update: () => undefined }), ours("refused"));
  stop();
});

test("the SVID of a source is the newest, and an expired or closed one is none", { timeout: 30_000 }, async (t) => {
  let call;
  const { api, stop } = await serve(t, { x509: (opened) => (call = opened).write({ svids: [svid("one", ID)] }) });
  const source = await X509Source.open({ api });
  assert.equal(source.svid.spiffeId, ID);
  const changed = new Promise((resolve) => source.onUpdate(resolve));
  call.write({ svids: [svid("two", `${ID}/y`)] });
  await changed;
  assert.equal(source.svid.spiffeId, `${ID}/y`);
  assert.throws(() => source.bundle("other.example"), ours("bundle"));
  const real = Date.now;
  Date.now = () => real() + 2 * 86_400_000;
  assert.throws(() => source.svid, ours("expired"));
  Date.now = real;
  source.close();
  assert.throws(() => source.svid, ours("closed"));
  stop();
});

test("what a program throws in its handlers ends no process, and a server keeps what it has", { timeout: 30_000 }, async (t) => {
  let call;
  const { api } = await serve(t, { x509: (opened) => (call = opened).write({ svids: [svid("one", ID)] }) });
  const pick = (svids) => svids.find(({ spiffeId }) => spiffeId === ID);
  const source = await X509Source.open({ api, pick });
  const contexts = [];
  source.follow({ setSecureContext: (options) => contexts.push(options.cert) });
  source.onUpdate(() => {
    throw new Error("of the program");
  });
  const errors = [];
  const watching = new AbortController();
  const watched = api.watchX509Context({ update: () => assert.fail("no"), error: (e) => errors.push(e.code) }, watching.signal);
  const first = call;
  first.write({ svids: [svid("two", `${ID}/y`)] });
  await sleep(300);
  watching.abort();
  await watched;
  assert.ok(errors.length > 0 && errors.every((code) => code === "update"), `${errors}`);
  assert.throws(() => source.svid, ours("closed"), "the one that was picked is gone");
  assert.deepEqual(contexts, []);
  source.close();
});

test("closing ends calls that wait, and a source outlives a Workload API that is away", { timeout: 30_000 }, async (t) => {
  const { api, stop } = await serve(t, { x509: () => undefined, jwt: () => undefined });
  const [from, waiting] = [Date.now(), [api.fetchX509Context(), api.fetchJwtSvid("a")]];
  waiting.forEach((call) => call.catch(() => undefined));
  await sleep(200);
  api.close();
  for (const call of waiting) await assert.rejects(call, ours("closed"));
  assert.ok(Date.now() - from < 1500);
  stop();
  const other = await serve(t, { x509: (call) => call.write({ svids: [svid("one", ID)] }) });
  const program = `const { X509Source } = require(${JSON.stringify(fileURLToPath(new URL("../dist/index.js", import.meta.url)))});
    X509Source.open({ api: ${JSON.stringify(other.address)} }).then(() => console.log("open"));`;
  const child = spawn(process.execPath, ["-e", program], { stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => child.kill("SIGKILL"));
  await once(child.stdout, "data");
  other.stop();
  await sleep(1500);
  assert.equal(child.exitCode, null, "it waits for the Workload API to come back");
});

test("in mTLS the SPIFFE ID decides, and a server follows the rotation", { timeout: 30_000 }, async (t) => {
  let call;
  const { api } = await serve(t, { x509: (opened) => (call = opened).write({ svids: [svid("one", ID)] }) });
  const source = await X509Source.open({ api });
  let admitted = "spiffe://td.example/x/";
  const server = https.createServer(source.serverOptions(), (request, response) => {
    try {
      response.end(source.peerOf(request.socket, admitted));
    } catch (e) {
      response.writeHead(403).end(e.code);
    }
  });
  source.follow(server);
  server.listen(0, "127.0.0.1");
  t.after(() => (server.closeAllConnections(), server.close()));
  await once(server, "listening");
  const get = async (options) => {
    const asked = https.get({ host: "127.0.0.1", port: server.address().port, agent: false, ...options });
    const [response] = await once(asked, "response");
    let text = "";
    for await (const part of response) text += part;
    return [response.statusCode, text, response.socket.getPeerCertificate().subject.CN];
  };
  // The server is `one`: it admits those below it alone.
  assert.deepEqual(await get(source.tlsOptions(ID)), [403, "peer", "one"]);
  const changed = new Promise((resolve) => source.onUpdate(resolve));
  call.write({ svids: [svid("two", `${ID}/y`)] });
  await changed;
  assert.deepEqual(await get(source.tlsOptions("spiffe://td.example")), [200, `${ID}/y`, "two"]);
  for (const peer of [ID, "spiffe://td.example/x/z", () => false]) await assert.rejects(get(source.tlsOptions(peer)), /another was asked for/);
  assert.throws(() => source.tlsOptions("spiffe://other.example/x"), ours("bundle"));
  // A certificate of another trust domain, by the same CA: that CA's bundle does not count for it.
  const foreign = { key: pem("other.key"), cert: pem("other.pem"), ca: pem("ca.pem"), checkServerIdentity: () => undefined };
  assert.deepEqual((await get(foreign)).slice(0, 2), [403, "peer"]);
  admitted = "spiffe://other.example/x";
  assert.deepEqual((await get(foreign)).slice(0, 2), [403, "peer"], "also where it is asked for by name");
  await assert.rejects(get({ ...foreign, key: undefined, cert: undefined }));
  source.close();
});

test("under mayfly run both kinds of SVID are there, rotate, and end with the agent", { timeout: 120_000 }, async () => {
  const binary = process.env.MAYFLY ?? "mayfly";
  writeFileSync(join(folder, "more.toml"), `[[classes]]
name = "quick"
owner = "tests"
scopes = ["search:read"]
audiences = ["https://search.example"]
svid_ttl = "10s"
max_lease = "10m"
modes = ["delegated"]
spawners = ["workload/orchestrator"]
`);
  const dev = spawn(binary, ["dev", "--config", "more.toml"], { cwd: folder, stdio: ["ignore", "pipe", "inherit"] });
  try {
    for (let said = ""; !said.includes("ready"); ) said += (await once(dev.stdout, "data"))[0];
    writeFileSync(join(folder, "demo.jwt"), execFileSync(binary, ["token", "demo"], { cwd: folder }));
    // The program of the package's page, as it stands there.
    const page = readFileSync(new URL("../README.md", import.meta.url), "utf8");
    const [, printed] = /^```ts\n(\/\/ whoami\.mjs\n.*?)^```$/ms.exec(page);
    writeFileSync(join(folder, "whoami.mjs"), printed);
    mkdirSync(join(folder, "node_modules/@mayfly"), { recursive: true });
    symlinkSync(fileURLToPath(new URL("..", import.meta.url)), join(folder, "node_modules/@mayfly/spiffe"));
    const whoami = ["run", "--class", "quick", "--user-token", "demo.jwt", "--", process.execPath, "whoami.mjs"];
    assert.match(execFileSync(binary, whoami, { cwd: folder, encoding: "utf8" }), /^I am spiffe:\S+ until \S+Z\nverified: true\n$/);
    const program = fileURLToPath(new URL("whole.mjs", import.meta.url));
    const args = ["run", "--class", "quick", "--user-token", "demo.jwt", "--grace", "20", "--", process.execPath, program];
    const run = spawn(binary, args, { cwd: folder, stdio: ["ignore", "pipe", "inherit"] });
    let said = "";
    run.stdout.on("data", (part) => (said += part));
    while (!said.includes("rotated")) (await sleep(50), assert.equal(run.exitCode, null, said));
    const [, id] = /(spiffe:\S+) rotated/.exec(said);
    execFileSync(binary, ["revoke", "--agent", id], { cwd: folder });
    while (run.exitCode === null && run.signalCode === null) await sleep(50);
    assert.match(said, /rotated\nover: denied\n$/);
  } finally {
    dev.kill("SIGTERM");
    await once(dev, "exit");
  }
});

test("sources of JWT-SVIDs verify without a call", { timeout: 30_000 }, async (t) => {
  const { api, stop } = await serve(t, {
    jwtBundles: (call) => call.write({ bundles: { "spiffe://td.example": Buffer.from('{"keys":[]}') } }),
    jwt: (request, answer) => answer(null, { svids: [{ spiffe_id: ID, svid: "a.b.c" }] }),
    validate: (request, answer) => answer(null, { spiffe_id: ID, claims: { fields: { n: { numberValue: 1, kind: "numberValue" }, l: { listValue: { values: [{ boolValue: true }] } } } } }),
  });
  const source = await JwtSource.open({ api });
  await assert.rejects(source.fetch("a"), ours("token"));
  await assert.rejects(source.fetch([]), ours("token"));
  assert.throws(() => source.validate("a.b.c", "a"), ours("token"));
  assert.deepEqual(await api.validateJwtSvid("a.b.c", "a"), { spiffeId: ID, claims: { n: 1, l: [true] } });
  source.close();
  assert.throws(() => source.validate("a.b.c", "a"), ours("closed"));
  stop();
});
