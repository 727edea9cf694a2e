/** Where the identity of this process comes from: `mayfly run`, another Workload API, a ticket or a folder. */
import { readFile, readlink, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { credentialOf, fromPem, newKey, pemOf, readKey, request, type Credential } from "./certificate.js";
import { Expired, NoIdentity, Unusable } from "./errors.js";
import { Identity } from "./identity.js";
import { Connection, insist, rootOf, type Issuer } from "./issuer.js";
import { noIssuer } from "./keeper.js";
import { answered, leaseOf, Own } from "./own.js";
import { parseTicket, PREFIX, type Ticket } from "./ticket.js";
import { Served } from "./workload.js";

/** How to find an identity. */
export interface Options {
  /** `host:port` of the issuer; by default that of the ticket, `MAYFLY_SERVER`, of the folder, or of the home (`MAYFLY_HOME`). */
  server?: string;
  /** Seconds for an identity to arrive from a Workload API; 10, if left out. */
  patience?: number;
}

let ofProcess: Promise<Identity> | undefined;

/**
 * The identity of this process. Without `source` it is that of `mayfly run` or of another Workload API (`SPIFFE_ENDPOINT_SOCKET`),
 * or else that of the ticket in `MAYFLY_TICKET`, and is opened once. `source` is a ticket, a file with one, the folder of an agent
 * or a workload, or the address of a Workload API. The folder of an agent is taken over: its certificate is renewed at once, and the
 * files are an outdated copy that nobody may use any more.
 * Rejects with `NoIdentity`, `Unusable`, `Unavailable`, `Denied` or `Revoked`.
 */
export async function current(source?: string, options: Options = {}): Promise<Identity> {
  if (source !== undefined) return open(source, options);
  if (ofProcess) {
    const known = await ofProcess.catch(() => undefined);
    if (known && !known.ended.aborted) return known;
  }
  ofProcess = fromEnvironment(options);
  return ofProcess;
}

async function fromEnvironment(options: Options): Promise<Identity> {
  const { SPIFFE_ENDPOINT_SOCKET: endpoint, MAYFLY_TICKET: ticket } = process.env;
  if (endpoint) return served(endpoint, options);
  if (ticket) return redeem(parseTicket(ticket.trim()));
  throw new NoIdentity(
    "no_identity",
    "start this program with `mayfly run --class CLASS -- …`, set MAYFLY_TICKET, or give a folder or ticket",
  );
}

const served = async (endpoint: string, { server, patience = 10 }: Options): Promise<Identity> =>
  new Identity(await Served.open(endpoint, server ?? (await serverOf()), patience));

async function open(source: string, options: Options): Promise<Identity> {
  if (/^(unix:|tcp:\/\/)/.test(source)) return served(source, options);
  if (source.startsWith(PREFIX)) return redeem(parseTicket(source.trim()));
  const found = await stat(source).catch((e: Error) => {
    throw new Unusable("io", `\`${source.slice(0, 64)}\` is no folder, file, ticket or socket: ${e.message}`);
  });
  if (found.isDirectory()) return fromFolder(source, options);
  if (!found.isFile() || found.size > 4096) throw new Unusable("not_a_ticket", `\`${source}\` holds no ticket`);
  return redeem(parseTicket((await readFile(source, "utf8")).trim()));
}

async function redeem(ticket: Ticket): Promise<Identity> {
  const at: Issuer = { address: ticket.address, trustDomain: ticket.trustDomain };
  const key = newKey();
  const connection = new Connection(at, undefined, await insist(() => rootOf(ticket)));
  try {
    // The issuer gives the same answer to the same key, so a lost answer can be asked for again.
    const got = await insist(() => connection.call("Redeem", { secret: ticket.secret, csr: request(key) }));
    return new Identity(new Own(at, answered(key, got), leaseOf(got)));
  } finally {
    connection.close();
  }
}

async function fromFolder(folder: string, { server }: Options): Promise<Identity> {
  const { credential, roots } = await saved(folder);
  if (credential.expiresAt <= Date.now() / 1000) {
    throw new Expired("expired", `the certificate in \`${folder}\` has expired: spawn another agent, or redeem a ticket`);
  }
  const address = server ?? (await serverOf(folder));
  if (!address) throw noIssuer();
  const at: Issuer = { address, trustDomain: credential.trustDomain };
  if (!credential.spiffeId.includes("/agent/")) return new Identity(new Own(at, { credential, roots, sequence: 0 }, undefined));
  const key = newKey();
  const connection = new Connection(at, credential, roots);
  try {
    const got = await insist(() => connection.call("Renew", { csr: request(key) }));
    const first = answered(key, got);
    if (first.credential.spiffeId !== credential.spiffeId) throw new Unusable("answer", "the certificate has another SPIFFE ID");
    // ORDER: before the renewed certificate is used, so that nothing connects with its predecessor any more.
    connection.close();
    return new Identity(new Own(at, first, leaseOf(got)));
  } finally {
    connection.close();
  }
}

async function saved(folder: string): Promise<{ credential: Credential; roots: string }> {
  for (let looks = 0; ; looks++) {
    const base = await baseOf(folder);
    try {
      const credential = credentialOf(fromPem(await text(base, "svid.pem")), readKey(await text(base, "key.pem", true)));
      return { credential, roots: pemOf(fromPem(await text(base, "bundle.pem"))) };
    } catch (e) {
      // Whoever renews the folder may have removed these files meanwhile; then those of the next certificate are read.
      if (looks >= 16 || base === (await baseOf(folder))) throw e;
    }
  }
}

/** The folder with the files of the current certificate, to which one link leads. */
const baseOf = async (folder: string): Promise<string> => join(folder, await readlink(join(folder, "..data")).catch(() => ""));

async function text(folder: string, name: string, secret = false): Promise<string> {
  const path = join(folder, name);
  try {
    const found = await stat(path);
    if (!found.isFile() || found.size > 1 << 20) throw new Unusable("not_a_file", `\`${path}\` is no file of at most 1 MiB`);
    if (secret && found.mode & 0o077) {
      const mode = (found.mode & 0o777).toString(8);
      throw new Unusable("too_wide", `\`${path}\` has mode ${mode}, so others may know the private key: run \`chmod 600 ${path}\``);
    }
    return await readFile(path, "utf8");
  } catch (e) {
    throw e instanceof Unusable ? e : new Unusable("io", (e as Error).message);
  }
}

async function serverOf(folder?: string): Promise<string | undefined> {
  if (process.env["MAYFLY_SERVER"]) return process.env["MAYFLY_SERVER"];
  const named = folder === undefined ? "" : await text(await baseOf(folder), "issuer").catch(() => "");
  if (named.trim()) return named.trim();
  const homes = [process.env["MAYFLY_HOME"] || ".mayfly"];
  const above = folder === undefined ? "" : dirname(resolve(folder));
  if (basename(above) === "workloads") homes.unshift(dirname(above));
  for (const home of homes) {
    try {
      const { grpc } = JSON.parse(await readFile(join(home, "endpoint.json"), "utf8"));
      if (typeof grpc === "string") return grpc;
    } catch {
      // Not a home of a development issuer.
    }
  }
  return undefined;
}
