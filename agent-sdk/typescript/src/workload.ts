/** An identity from a SPIFFE Workload API: that of `mayfly run`, of a SPIRE agent, or of any other implementation. */
import { SpiffeError, WorkloadApi, type X509Context } from "@mayfly/spiffe";
import { credentialOf, usable } from "./certificate.js";
import { Denied, Expired, MayflyError, NoIdentity, Revoked, Unavailable, Unusable } from "./errors.js";
import { Connection, errorOf as errorOfCall, type Issuer } from "./issuer.js";
import { ask, endpoint } from "./oauth.js";
import { Keeper, noIssuer, type Current, type Minted } from "./keeper.js";
import { exchanged } from "./own.js";
import * as pace from "./pace.js";
import { claimsOf } from "./tokens.js";

/** Follows a Workload API. It renews nothing itself. */
export class Served extends Keeper {
  readonly #api: WorkloadApi;
  #why: MayflyError = new Unavailable("unavailable", "no identity arrived in time: check that the Workload API runs");
  /** URL of the issuer, once a token has said it. */
  #iss = "";
  #first: () => void = () => undefined;

  private constructor(endpoint: string) {
    super();
    this.#api = usable(() => new WorkloadApi(endpoint, { timeout: pace.PATIENCE }));
  }

  /** Waits up to `patience` seconds for an identity. */
  static async open(endpoint: string, server: string | undefined, patience: number): Promise<Served> {
    const served = new Served(endpoint);
    const arrived = new Promise<void>((resolve) => (served.#first = resolve));
    served.#follow();
    // Somebody waits, so this one keeps the process alive.
    const timer = setTimeout(() => served.#first(), patience * 1000);
    await arrived;
    clearTimeout(timer);
    if (!served.held) {
      served.close();
      throw served.#why;
    }
    if (server) served.issuer = { address: server, trustDomain: served.held.credential.trustDomain };
    return served;
  }

  async mint(audience: string, forAgent = ""): Promise<Minted> {
    // `mayfly run` mints for a sub-agent without a key on its own connection.
    const spiffeId = forAgent || this.current().credential.spiffeId;
    const { token, expiresAt } = await this.#api.fetchJwtSvid(audience, { spiffeId }).catch((e: SpiffeError) => {
      throw forAgent && e.status !== undefined ? errorOfCall(e.cause) : errorOf(e);
    });
    // If the identity was revoked in the meantime, the token must not be handed out.
    this.current();
    return { text: token, expiresAt: expiresAt.getTime() / 1000 };
  }

  /**
   * At the token endpoint, which accepts a JWT-SVID. The API's server renews, and a connection with a certificate from before that
   * would be taken for theft.
   */
  async exchange(audience: string, scopes: readonly string[], forAgent = ""): Promise<Minted> {
    if (forAgent) {
      // No JWT-SVID of it proves it there: it is bound to a certificate.
      return exchanged(await this.connected((connection) => connection.call("Exchange", { audience, scopes, for_agent: forAgent })));
    }
    const { credential, roots } = this.current();
    this.#iss ||= String(claimsOf((await this.mint(audience)).text)["iss"] ?? "");
    const url = endpoint(this.#iss, this.issuer?.address);
    const pinned = this.issuer && { roots, id: `spiffe://${this.issuer.trustDomain}/issuer` };
    const once = async () => ask(url, (await this.mint(this.#iss)).text, audience, scopes, pinned);
    // Another process of the tree may have been given the same JWT-SVID, which proves its agent once.
    const got = await once().catch((e) => (e instanceof Denied && e.code === "ASSERTION_USED" ? once() : Promise.reject(e)));
    // If the identity was revoked in the meantime, the token must not be handed out.
    if (this.current().credential.spiffeId !== credential.spiffeId) throw new Unavailable("changed", "the identity changed: ask again");
    return got;
  }

  /**
   * A connection for one purpose. The API's server renews, and the issuer takes a connection with a certificate from before a used
   * renewal for theft: so the newest one is fetched first, and the connection does not outlive its purpose.
   */
  async connected<T>(use: (connection: Connection, at: Issuer) => Promise<T>): Promise<T> {
    this.current();
    if (!this.issuer) throw noIssuer();
    const connection = await this.#reach(this.issuer);
    try {
      return await use(connection, this.issuer);
    } finally {
      connection.close();
    }
  }

  /**
   * A connection that the issuer accepted while its certificate was the newest one. The API's server publishes a renewed certificate
   * before it uses it. So if the newest one is still the same after the handshake, its successor has not been used, and the issuer
   * excuses this connection whatever happens next. Otherwise nothing was asked over it, for which nobody is punished, and it is made again.
   */
  async #reach(issuer: Issuer): Promise<Connection> {
    let current = await this.newest();
    for (let tried = 0; tried < pace.TRIES; tried++) {
      const connection = new Connection(issuer, current.credential, current.roots);
      try {
        await connection.open();
        const newest = await this.newest();
        if (newest.credential.chainPem === current.credential.chainPem) return connection;
        current = newest;
      } catch (e) {
        connection.close();
        throw e;
      }
      connection.close();
    }
    throw new Unavailable("moved", "the certificate was renewed again and again while connecting: ask again");
  }

  async end(): Promise<void> {
    await this.connected((connection) => connection.call("End", {}));
  }

  override close(): void {
    super.close();
    this.#api.close();
  }

  /** The certificate that the API has now. */
  protected async newest(): Promise<Current> {
    return read(
      await this.#api.fetchX509Context().catch((e: SpiffeError) => {
        throw errorOf(e);
      }),
    );
  }

  #follow(): void {
    const expiry = setInterval(() => {
      const ended = this.held && this.held.credential.expiresAt <= Date.now() / 1000;
      if (ended) this.endBecause(new Expired("expired", "no new certificate arrived in time: check that the Workload API runs"));
    }, 1000);
    expiry.unref();
    this.stopped.addEventListener("abort", () => clearInterval(expiry));
    this.#api
      .watchX509Context({ update: (next) => this.#take(next), error: (e) => this.#failed(e) }, this.stopped)
      // The API refuses the question itself: it is asked no more.
      .catch(() => this.#first());
  }

  #take(context: X509Context): void {
    try {
      const next = read(context);
      if (this.held?.credential.spiffeId !== next.credential.spiffeId) this.tokens.clear();
      this.held = next;
      this.#first();
    } catch (e) {
      if (!(e instanceof MayflyError)) throw e;
      this.#why = e;
    }
  }

  #failed(e: SpiffeError): void {
    this.#why = errorOf(e);
    // An identity that was withdrawn has ended.
    if (this.held && (e.code === "denied" || e.code === "refused")) this.endBecause(new Revoked("withdrawn", this.#why.hint));
  }
}

function errorOf(e: SpiffeError): MayflyError {
  if (e.status === undefined) return new Unusable(e.code, e.message);
  if (e.code === "denied") return new NoIdentity("no_identity", `the Workload API refuses: ${e.message}; check that this process is registered there`);
  if (e.code === "refused") return new Denied(String(e.status), `the Workload API refuses this: ${e.message}`);
  return new Unavailable("unavailable", `the Workload API cannot answer now: ${e.message}; check that it runs`);
}

/** The default identity, the first. Throws `Unusable`. */
function read({ svids, bundles }: X509Context): Current {
  const [svid] = svids;
  const bundle = svid && bundles.get(svid.trustDomain);
  if (!bundle) throw new Unusable("answer", "the Workload API's answer lacks a mandatory field");
  const credential = credentialOf(svid.certificates.map((one) => one.raw), svid.privateKey);
  if (credential.expiresAt <= Date.now() / 1000) throw new Unusable("answer", "the certificate has expired");
  return { credential, roots: bundle.pem, sequence: 0 };
}
