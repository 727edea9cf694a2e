/** Sources follow the Workload API in the background, and give TLS what it needs. */
import { type Server as TlsServer, type ConnectionOptions, type SecureContextOptions, type TLSSocket } from "node:tls";
import { WorkloadApi, type X509Context } from "./api.js";
import { SpiffeError } from "./error.js";
import { parseId, parseTrustDomain } from "./id.js";
import { validateJwtSvid, type JwtBundle, type JwtSvid } from "./jwt.js";
import { idOfNames, type X509Bundle, type X509Svid } from "./x509.js";

/** Who a peer must be: a SPIFFE ID; every ID below one that ends with `/`; `spiffe://trust-domain` for everybody there; a function. */
export type Peer = string | ((id: string) => boolean);

/** Where a source gets its news. */
export interface SourceOptions {
  /** A connection, which stays open when the source is closed, or an address; by default `SPIFFE_ENDPOINT_SOCKET`. */
  api?: WorkloadApi | string;
  /** Seconds to wait for the first answer; 10, if left out. */
  patience?: number;
}

/** The newest X.509-SVID and bundles. It keeps the process alive until it is closed. */
export class X509Source {
  #now: X509Context | undefined;
  readonly #following: Following;
  readonly #pick: (svids: readonly X509Svid[]) => X509Svid | undefined;
  readonly #listeners = new Set<() => void>();

  private constructor(api: WorkloadApi | string | undefined, pick: (svids: readonly X509Svid[]) => X509Svid | undefined) {
    this.#following = new Following(api);
    this.#pick = pick;
  }

  /** Waits for the first answer. `pick` chooses one of several identities: the first, if left out. Rejects with `SpiffeError`. */
  static async open(
    { api, patience = 10, pick = ([first]) => first }: SourceOptions & { pick?: (svids: readonly X509Svid[]) => X509Svid | undefined } = {},
  ): Promise<X509Source> {
    const source = new X509Source(api, pick);
    await source.#following.begin(patience, (on, signal) =>
      source.#following.api.watchX509Context(
        { ...on, update: (next) => (source.#pick(next.svids), (source.#now = next), on.update(), source.#listeners.forEach((tell) => tell())) },
        signal,
      ),
    );
    return source;
  }

  /** Throws `SpiffeError` if it is closed, or the SVID has expired because no newer one came. */
  get svid(): X509Svid {
    const svid = this.#following.open && this.#now ? this.#pick(this.#now.svids) : undefined;
    if (!svid) throw new SpiffeError("closed", "the source has no SVID: it was closed, or none was picked");
    if (svid.expiresAt.getTime() <= Date.now()) throw new SpiffeError("expired", "no newer SVID came: check that the Workload API runs");
    return svid;
  }

  /** The bundle of a trust domain, `name` or `spiffe://name`. Throws `SpiffeError` if there is none. */
  bundle(trustDomain: string): X509Bundle {
    const found = this.#now?.bundles.get(parseTrustDomain(trustDomain));
    if (!found) throw new SpiffeError("bundle", `there is no bundle of \`${trustDomain}\``);
    return found;
  }

  /** Calls back after each change; the result stops that. */
  onUpdate(tell: () => void): () => void {
    this.#listeners.add(tell);
    return () => void this.#listeners.delete(tell);
  }

  /**
   * Settings for one connection as a client, with the newest SVID: make new ones for each connection. The peer must be the one that was
   * asked for; its host name has no meaning. Throws `SpiffeError`.
   */
  tlsOptions(peer: Peer): ConnectionOptions {
    const { allows, trustDomain } = ruleOf(peer, this.svid.trustDomain);
    return {
      ...this.#own(trustDomain),
      rejectUnauthorized: true,
      checkServerIdentity: (_, certificate) => {
        try {
          return insist(idOfNames(certificate.subjectaltname), allows, trustDomain);
        } catch (e) {
          return e as Error;
        }
      },
    };
  }

  /** Settings for a server, which asks for a certificate of its own trust domain; `follow` keeps them up to date. Throws `SpiffeError`. */
  serverOptions(): SecureContextOptions & { requestCert: true; rejectUnauthorized: true } {
    return { ...this.#own(this.svid.trustDomain), requestCert: true, rejectUnauthorized: true };
  }

  /** Gives a server each newer SVID and bundle, for the connections after it; the result stops that. */
  follow(server: Pick<TlsServer, "setSecureContext">): () => void {
    return this.onUpdate(() => {
      let options;
      try {
        options = this.serverOptions();
      } catch {
        // Without an SVID that can be used the server keeps what it has: TLS refuses it once it has expired.
        return;
      }
      server.setSecureContext(options);
    });
  }

  /** The SPIFFE ID of a server's client, which must be the peer. TLS has verified its chain. Throws `SpiffeError`. */
  peerOf(socket: TLSSocket, peer: Peer): string {
    const own = this.svid.trustDomain;
    const { allows, trustDomain } = ruleOf(peer, own);
    // The chain was verified with the bundle of the own trust domain, which says nothing about any other.
    if (trustDomain !== own) throw new SpiffeError("peer", `a server admits clients of its own trust domain, \`${own}\`, alone`);
    if (!socket.authorized) throw new SpiffeError("peer", "the client's certificate was not verified");
    const id = idOfNames(socket.getPeerCertificate().subjectaltname);
    const refused = insist(id, allows, trustDomain);
    if (refused) throw refused;
    return id;
  }

  /** Follows no more, and gives out nothing any more. */
  close(): void {
    this.#following.close();
  }

  #own(trustDomain: string): SecureContextOptions {
    const { svid } = this;
    return { key: svid.keyPem, cert: svid.certificatePem, ca: this.bundle(trustDomain).pem, minVersion: "TLSv1.2" };
  }
}

/** JWT-SVIDs as they are asked for, and the newest JWT bundles. It keeps the process alive until it is closed. */
export class JwtSource {
  #bundles: ReadonlyMap<string, JwtBundle> = new Map();
  readonly #following: Following;

  private constructor(api: WorkloadApi | string | undefined) {
    this.#following = new Following(api);
  }

  /** Waits for the first bundles. Rejects with `SpiffeError`. */
  static async open({ api, patience = 10 }: SourceOptions = {}): Promise<JwtSource> {
    const source = new JwtSource(api);
    await source.#following.begin(patience, (on, signal) =>
      source.#following.api.watchJwtBundles({ ...on, update: (next) => ((source.#bundles = next), on.update()) }, signal),
    );
    return source;
  }

  /** A new JWT-SVID. Rejects with `SpiffeError`. */
  fetch(audience: string | readonly string[], options: { spiffeId?: string } = {}): Promise<JwtSvid> {
    return this.#following.api.fetchJwtSvid(audience, options);
  }

  /** Verifies a JWT-SVID by the newest bundles, without a call. Throws `SpiffeError`. */
  validate(token: string, audience: string | readonly string[]): JwtSvid {
    if (!this.#following.open) throw new SpiffeError("closed", "the source was closed");
    return validateJwtSvid(token, this.#bundles, typeof audience === "string" ? [audience] : audience);
  }

  /** Follows no more. */
  close(): void {
    this.#following.close();
  }
}

/** A connection with one stream that is followed. */
class Following {
  readonly api: WorkloadApi;
  readonly #own: boolean;
  readonly #stop = new AbortController();

  constructor(api: WorkloadApi | string | undefined) {
    this.#own = !(api instanceof WorkloadApi);
    this.api = api instanceof WorkloadApi ? api : new WorkloadApi(api);
  }

  get open(): boolean {
    return !this.#stop.signal.aborted;
  }

  async begin(
    patience: number,
    watch: (on: { update: () => void; error: (e: SpiffeError) => void }, signal: AbortSignal) => Promise<void>,
  ): Promise<void> {
    let why = new SpiffeError("unavailable", "nothing arrived in time: check that the Workload API runs");
    const arrived = await new Promise<boolean>((resolve) => {
      const timer = setTimeout(() => resolve(false), patience * 1000);
      const settle = (good: boolean): void => (clearTimeout(timer), resolve(good));
      const on = { update: () => settle(true), error: (e: SpiffeError) => void (why = e) };
      watch(on, this.#stop.signal).catch((e: SpiffeError) => ((why = e), settle(false)));
    });
    if (arrived) return;
    this.close();
    throw why;
  }

  close(): void {
    this.#stop.abort();
    if (this.#own) this.api.close();
  }
}

/** Which IDs a peer may have, and in which trust domain. Throws `SpiffeError` if the rule is none. */
export function ruleOf(peer: Peer, own: string): { allows: (id: string) => boolean; trustDomain: string } {
  if (typeof peer === "function") return { allows: peer, trustDomain: own };
  const { trustDomain, path } = parseId(peer.endsWith("/") ? peer.slice(0, -1) : peer);
  if (peer.endsWith("/")) return { allows: (id) => id.startsWith(peer), trustDomain };
  return { allows: path ? (id) => id === peer : () => true, trustDomain };
}

function insist(id: string, allows: (id: string) => boolean, trustDomain: string): SpiffeError | undefined {
  // A bundle counts for its own trust domain and for no other.
  if (parseId(id).trustDomain === trustDomain && allows(id) === true) return undefined;
  return new SpiffeError("peer", `the peer is \`${id}\`, and another was asked for`);
}
