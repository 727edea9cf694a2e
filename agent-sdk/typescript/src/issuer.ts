/** Calls to the issuer: mTLS with the newest certificate, time limits, and what a refusal means. */
import { createHash, X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import { join } from "node:path";
import { connect } from "node:tls";
import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { idOf, pemOf, type Credential } from "./certificate.js";
import { Denied, Exhausted, EXPIRED, Expired, FINAL, MayflyError, Revoked, Unavailable, Unusable } from "./errors.js";
import { calls, PATIENCE, sleep, TRIES } from "./pace.js";
import { checkAddress, type Ticket } from "./ticket.js";

/** Where an issuer is, and of which trust domain. */
export interface Issuer {
  /** `host:port` */
  address: string;
  trustDomain: string;
}

/** A message of the API, with the field names of the proto; a 64-bit number is a string. */
export type Message = Record<string, any>;

const folder = join(__dirname, "..", "proto");
let loaded: any;
/** The clients of the proto that the package ships. It is read at the first use, so that an import costs less. */
const api = (): any =>
  (loaded ??= (
    grpc.loadPackageDefinition(
      loadSync("mayfly/v1/mayfly.proto", { includeDirs: [folder], keepCase: true, longs: String, enums: String, bytes: Buffer, oneofs: true }),
    ) as any
  ).mayfly.v1);

const OPTIONS: grpc.ChannelOptions = {
  // A transparent retry could connect again with a certificate that was renewed in the meantime.
  "grpc.enable_retries": 0,
  "grpc.use_local_subchannel_pool": 1,
  "grpc.enable_http_proxy": 0,
  "grpc.max_reconnect_backoff_ms": 2000,
};
const TRANSIENT = new Set([
  grpc.status.UNAVAILABLE, grpc.status.DEADLINE_EXCEEDED, grpc.status.INTERNAL, grpc.status.UNKNOWN, grpc.status.CANCELLED,
  grpc.status.ABORTED,
]);

/** One for each service; all share one connection. */
interface Clients {
  identities: any;
  tokens: any;
  bundles: any;
  budgets: any;
}

/** Which of them has a method. */
const SERVICES = {
  Redeem: "identities", Renew: "identities", Spawn: "identities", MintJwt: "identities", End: "identities",
  Exchange: "tokens",
  GetBudget: "budgets", Spend: "budgets", Reserve: "budgets", Release: "budgets",
} as const satisfies Record<string, keyof Clients>;

/**
 * A channel that is replaced whenever the certificate is.
 *
 * INVARIANT: once a connection was made with a renewed certificate, none is made with its predecessor. The issuer would take the
 * predecessor for stolen and revoke the agent. So the old channel is closed before the new one can be used; calls that were under
 * way are made again on the new one.
 */
export class Connection {
  #clients: Clients | undefined;

  constructor(
    readonly at: Issuer,
    private credential: Credential | undefined,
    private roots: string,
  ) {
    checkAddress(at.address);
    this.#clients = this.#open();
  }

  /** Makes one call, within its time limit. */
  async call(method: keyof typeof SERVICES, request: Message): Promise<Message> {
    for (let tried = 0; tried < TRIES; tried++) {
      const clients = this.#current();
      try {
        return await new Promise<Message>((resolve, reject) => {
          const deadline = Date.now() + PATIENCE * 1000;
          clients[SERVICES[method]][method](request, { deadline }, (error: grpc.ServiceError | null, answer: Message) =>
            error ? reject(error) : resolve(answer),
          );
        });
      } catch (e) {
        const error = errorOf(e);
        // A renewal was used while this call was under way on the connection from before it, or closed that connection.
        const moved = error.code === "GENERATION_PAST" || (clients !== this.#clients && error instanceof Unavailable);
        if (!moved) throw error;
      }
    }
    throw new Unavailable("moved", "the certificate was renewed again and again during this call: ask again");
  }

  /** Connects now, with the handshake, within the time limit of a call; nothing is asked. */
  open(): Promise<void> {
    const { identities } = this.#current();
    return new Promise((resolve, reject) => {
      identities.waitForReady(Date.now() + PATIENCE * 1000, (error: Error | undefined) =>
        error ? reject(new Unavailable("unavailable", `cannot reach \`${this.at.address}\`: check that the issuer runs`)) : resolve(),
      );
    });
  }

  /** Opens the stream of bundles. */
  watchBundle(): grpc.ClientReadableStream<Message> {
    return this.#current().bundles.WatchBundle({});
  }

  /** Presents this certificate and trusts these roots from now on. */
  show(credential: Credential | undefined, roots: string): void {
    if (!this.#clients) return;
    // ORDER: see above.
    this.#end();
    this.credential = credential;
    this.roots = roots;
    this.#clients = this.#open();
  }

  /** Trusts these roots from the next connection on. */
  believe(roots: string): void {
    if (roots !== this.roots) this.show(this.credential, roots);
  }

  /** Makes no call any more. */
  close(): void {
    this.#end();
    this.#clients = undefined;
  }

  #end(): void {
    this.#clients?.identities.close();
    this.#clients?.tokens.close();
    this.#clients?.bundles.close();
    this.#clients?.budgets.close();
  }

  #current(): Clients {
    if (!this.#clients) throw new Unavailable("closed", "the connection to the issuer was closed");
    return this.#clients;
  }

  #open(): Clients {
    const wanted = `spiffe://${this.at.trustDomain}/issuer`;
    const own = this.credential;
    const [key, chain] = own ? [Buffer.from(own.keyPem), Buffer.from(own.chainPem)] : [null, null];
    const credentials = grpc.credentials.createSsl(Buffer.from(this.roots), key, chain, {
      // The host name has no meaning: the SPIFFE ID decides.
      checkServerIdentity: (_, certificate) => isPeer(certificate.subjectaltname, (id) => id === wanted),
    });
    // An IP address is no name for SNI.
    const name = isIP(checkAddress(this.at.address).host) ? { "grpc.ssl_target_name_override": this.at.trustDomain } : {};
    const options = { ...OPTIONS, ...name };
    const { Identities, Tokens, Budgets, Bundles } = api();
    const identities = new Identities(this.at.address, credentials, options);
    const shared = { ...options, channelOverride: identities.getChannel() };
    const tokens = new Tokens(this.at.address, credentials, shared);
    const budgets = new Budgets(this.at.address, credentials, shared);
    return { identities, tokens, bundles: new Bundles(this.at.address, credentials, shared), budgets };
  }
}

/** For `checkServerIdentity`: an error, unless the certificate has one SPIFFE ID that is allowed. */
export function isPeer(subjectAltName: string | undefined, allows: (id: string) => boolean): Error | undefined {
  try {
    const id = idOf(subjectAltName);
    return allows(id) ? undefined : new Unusable("untrusted", `the peer is \`${id}\`, and another was asked for`);
  } catch (e) {
    return e as Error;
  }
}

/** What a failed call means for the identity that made it. */
export function errorOf(e: unknown): MayflyError {
  if (e instanceof MayflyError) return e;
  const { code = grpc.status.UNKNOWN, details = String(e), metadata } = e as Partial<grpc.ServiceError>;
  const { reason, retryAfter, said } = detailsOf(metadata?.get("grpc-status-details-bin")[0]);
  const label = reason || (grpc.status[code] ?? "UNKNOWN");
  if (code === grpc.status.UNAUTHENTICATED && FINAL.has(reason)) return new (EXPIRED.has(reason) ? Expired : Revoked)(label, details);
  if (code === grpc.status.UNAVAILABLE && !reason && /another was asked for|certificate|X\.509-SVID/.test(details)) {
    return new Unusable("untrusted", `the server is not this trust domain's issuer: ${details.slice(0, 300)}`);
  }
  if (TRANSIENT.has(code)) {
    return new Unavailable(reason || "unavailable", `the issuer cannot answer now: ${details.slice(0, 300)}`, retryAfter);
  }
  if (reason === "BUDGET_EXHAUSTED") return new Exhausted(label, details, said);
  return new Denied(label, details, retryAfter);
}

/** Reason, pause and metadata of `google.rpc.Status`, which the issuer sends with a denial. What cannot be read is left out. */
export function detailsOf(bytes: grpc.MetadataValue | undefined): { reason: string; retryAfter: number | undefined; said: Map<string, string> } {
  let reason = "";
  const said = new Map<string, string>();
  let retryAfter: number | undefined;
  if (bytes instanceof Uint8Array) {
    for (const [field, detail] of fields(bytes)) {
      if (field !== 3 || !(detail instanceof Uint8Array)) continue;
      const any = new Map(fields(detail));
      const [url, value] = [any.get(1), any.get(2)];
      if (!(url instanceof Uint8Array) || !(value instanceof Uint8Array)) continue;
      const kind = Buffer.from(url).toString();
      const first = new Map(fields(value)).get(1);
      if (!(first instanceof Uint8Array)) continue;
      if (kind.endsWith("/google.rpc.ErrorInfo")) {
        reason = Buffer.from(first).toString();
        for (const [at, entry] of fields(value)) {
          if (at !== 3 || !(entry instanceof Uint8Array)) continue;
          const [key, text] = [1, 2].map((part) => new Map(fields(entry)).get(part));
          if (key instanceof Uint8Array && text instanceof Uint8Array) said.set(Buffer.from(key).toString(), Buffer.from(text).toString());
        }
      }
      if (kind.endsWith("/google.rpc.RetryInfo")) {
        const delay = new Map(fields(first));
        retryAfter = Number(delay.get(1) ?? 0) + Number(delay.get(2) ?? 0) / 1e9;
      }
    }
  }
  return { reason, retryAfter, said };
}

/** The fields of a protobuf message: numbers, and bytes. Ends where it is malformed. */
function fields(bytes: Uint8Array): [number, number | Uint8Array][] {
  const found: [number, number | Uint8Array][] = [];
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let shift = 0; shift < 63; shift += 7) {
      const byte = bytes[at++];
      if (byte === undefined) return -1;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    return -1;
  };
  while (at < bytes.length) {
    const key = varint();
    const field = Math.floor(key / 8);
    if (key % 8 === 0) found.push([field, varint()]);
    else if (key % 8 === 2) {
      const size = varint();
      if (size < 0 || at + size > bytes.length) break;
      found.push([field, bytes.subarray(at, at + size)]);
      at += size;
    } else break;
  }
  return found;
}

/** Repeats a call a few times while nobody answers. */
export async function insist<T>(ask: () => Promise<T>): Promise<T> {
  for (let failures = 0; ; failures++) {
    try {
      return await ask();
    } catch (e) {
      if (!(e instanceof MayflyError && e.transient) || failures + 1 >= TRIES) throw e;
      await sleepBusy(Math.min(Math.max(e.retryAfter ?? 0, calls(failures)), PATIENCE));
    }
  }
}

// Somebody waits for this one, so it keeps the process alive.
const sleepBusy = async (seconds: number): Promise<void> => {
  const busy = setInterval(() => undefined, 1000);
  await sleep(seconds);
  clearInterval(busy);
};

/**
 * Fetches the root that a ticket names, PEM. Throws `Unavailable`, or `Unusable` if the server has another root.
 *
 * The handshake verifies nothing, and nothing is sent over it: the root is a public certificate that is held against the pin.
 */
export function rootOf(ticket: Ticket): Promise<string> {
  const { host, port } = checkAddress(ticket.address);
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, rejectUnauthorized: false, ALPNProtocols: ["h2"], timeout: PATIENCE * 1000 });
    const fail = (why: string): void => {
      socket.destroy();
      reject(new Unavailable("unreachable", `cannot reach \`${ticket.address}\`: ${why}; check that the issuer runs`));
    };
    socket.once("error", (e) => fail(e.message));
    socket.once("timeout", () => fail("it does not answer"));
    socket.once("secureConnect", () => {
      const pem = pinned(socket.getPeerCertificate(true), ticket.root);
      socket.destroy();
      if (pem) resolve(pem);
      else reject(new Unusable("untrusted", "the server is not the issuer of this ticket: its root has another key"));
    });
  });
}

function pinned(certificate: { raw?: Buffer; issuerCertificate?: any }, pin: Buffer): string | undefined {
  for (let at = certificate, steps = 0; at?.raw && steps < 8; at = at.issuerCertificate, steps++) {
    const parsed = new X509Certificate(at.raw);
    const key = parsed.publicKey.export({ type: "spki", format: "der" }) as Buffer;
    // The right key in a certificate that somebody else signed is no root.
    if (createHash("sha256").update(key).digest().equals(pin) && parsed.verify(parsed.publicKey)) return pemOf([at.raw]);
  }
  return undefined;
}
