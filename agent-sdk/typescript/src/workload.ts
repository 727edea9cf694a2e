/** An identity from a SPIFFE Workload API: that of `mayfly run`, of a SPIRE agent, or of any other implementation. */
import * as grpc from "@grpc/grpc-js";
import { credentialOf, pemOf, readKey, splitDer } from "./certificate.js";
import { Denied, Expired, MayflyError, NoIdentity, Revoked, Unavailable, Unusable } from "./errors.js";
import { Connection, errorOf as errorOfCall, load, type Issuer, type Message } from "./issuer.js";
import { ask, endpoint } from "./oauth.js";
import { Keeper, noIssuer, type Current, type Minted } from "./keeper.js";
import { exchanged } from "./own.js";
import * as pace from "./pace.js";
import { claimsOf } from "./tokens.js";

const Api = load("workloadapi.proto")["SpiffeWorkloadAPI"] as grpc.ServiceClientConstructor;
const OPTIONS = { "grpc.enable_http_proxy": 0, "grpc.use_local_subchannel_pool": 1, "grpc.default_authority": "localhost" };
const NEVER = new Set([grpc.status.INVALID_ARGUMENT, grpc.status.UNIMPLEMENTED]);

/** Parses `unix:///path` or `tcp://IP:port` and returns it as grpc-js writes it. Throws `Unusable`. */
export function target(text: string): string {
  const tcp = /^tcp:\/\/((?:[0-9]{1,3}\.){3}[0-9]{1,3}|\[[0-9A-Fa-f:.]+\]):([1-9][0-9]{0,4})$/.exec(text);
  if (tcp && Number(tcp[2]) < 65536) return `${tcp[1]?.startsWith("[") ? "ipv6" : "ipv4"}:${tcp[1]}:${tcp[2]}`;
  const unix = /^unix:(?:\/\/)?(\/[^/%?#\0][^%?#\0]*[^/%?#\0]|\/[^/%?#\0])$/.exec(text);
  if (unix && !(text.startsWith("unix:////"))) return `unix:${unix[1]}`;
  throw new Unusable("endpoint", `\`${text.slice(0, 256)}\` is not the address of a Workload API: write unix:///path or tcp://IP:port`);
}

/** Follows a Workload API. It renews nothing itself. */
export class Served extends Keeper {
  readonly #client: any;
  #why: MayflyError = new Unavailable("unavailable", "no identity arrived in time: check that the Workload API runs");
  /** URL of the issuer, once a token has said it. */
  #iss = "";
  #first: () => void = () => undefined;

  private constructor(endpoint: string) {
    super();
    this.#client = new Api(target(endpoint), grpc.credentials.createInsecure(), OPTIONS);
  }

  /** Waits up to `patience` seconds for an identity. */
  static async open(endpoint: string, server: string | undefined, patience: number): Promise<Served> {
    const served = new Served(endpoint);
    const arrived = new Promise<void>((resolve) => (served.#first = resolve));
    void served.#follow();
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

  mint(audience: string, forAgent = ""): Promise<Minted> {
    // `mayfly run` mints for a sub-agent without a key on its own connection.
    const spiffeId = forAgent || this.current().credential.spiffeId;
    return new Promise((resolve, reject) => {
      const deadline = Date.now() + pace.PATIENCE * 1000;
      const asked = { audience: [audience], spiffe_id: spiffeId };
      this.#client.FetchJWTSVID(asked, header(), { deadline }, (error: grpc.ServiceError | null, answer: Message) => {
        try {
          if (error) throw forAgent ? errorOfCall(error) : errorOf(error);
          const svid = answer["svids"]?.[0];
          const { sub, exp } = claimsOf(String(svid?.svid));
          if (svid?.spiffe_id !== spiffeId || sub !== spiffeId || !(Number(exp) > Date.now() / 1000)) {
            throw new Unusable("answer", "the Workload API's answer has no token of this identity");
          }
          // If the identity was revoked in the meantime, the token must not be handed out.
          this.current();
          resolve({ text: svid.svid, expiresAt: Number(exp) });
        } catch (e) {
          reject(e);
        }
      });
    });
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
    this.#client.close();
  }

  /** The certificate that the API has now. */
  protected newest(): Promise<Current> {
    return new Promise((resolve, reject) => {
      const stream = this.#client.FetchX509SVID({}, header(), { deadline: Date.now() + pace.PATIENCE * 1000 });
      stream.once("data", (message: Message) => {
        try {
          resolve(read(message));
        } catch (e) {
          reject(e);
        }
        stream.cancel();
      });
      stream.on("error", (e: grpc.ServiceError) => reject(errorOf(e)));
    });
  }

  async #follow(): Promise<void> {
    for (let failures = 0; !this.stopped.aborted; failures++) {
      const opened = Date.now();
      const { heard, why } = await this.#listen();
      if (why) this.#why = errorOf(why);
      if (why && (why.code === grpc.status.PERMISSION_DENIED || NEVER.has(why.code))) {
        if (this.held) return this.endBecause(new Revoked("withdrawn", this.#why.hint));
        if (NEVER.has(why.code)) return this.#first();
      }
      if (heard && Date.now() - opened >= pace.STOOD * 1000) failures = 0;
      if (!heard || failures > 0) await pace.sleep(pace.streams(failures), this.stopped);
    }
  }

  #listen(): Promise<{ heard: boolean; why: grpc.ServiceError | undefined }> {
    return new Promise((resolve) => {
      let heard = false;
      const stream = this.#client.FetchX509SVID({}, header());
      const expiry = setInterval(() => {
        const ended = this.held && this.held.credential.expiresAt <= Date.now() / 1000;
        if (ended) this.endBecause(new Expired("expired", "no new certificate arrived in time: check that the Workload API runs"));
        if (this.stopped.aborted) stream.cancel();
      }, 1000);
      expiry.unref();
      const stop = (): void => stream.cancel();
      this.stopped.addEventListener("abort", stop);
      const end = (why: grpc.ServiceError | undefined): void => {
        clearInterval(expiry);
        this.stopped.removeEventListener("abort", stop);
        resolve({ heard, why });
      };
      stream.on("data", (message: Message) => {
        try {
          const next = read(message);
          if (this.held?.credential.spiffeId !== next.credential.spiffeId) this.tokens.clear();
          this.held = next;
          heard = true;
          this.#first();
        } catch (e) {
          // A message that lacks something is discarded as a whole.
          if (e instanceof MayflyError) this.#why = e;
        }
      });
      stream.on("error", end);
      stream.on("end", () => end(undefined));
    });
  }
}

function header(): grpc.Metadata {
  const metadata = new grpc.Metadata();
  metadata.set("workload.spiffe.io", "true");
  return metadata;
}

function errorOf(error: grpc.ServiceError): MayflyError {
  if (error.code === grpc.status.PERMISSION_DENIED) {
    return new NoIdentity("no_identity", `the Workload API refuses: ${error.details}; check that this process is registered there`);
  }
  if (NEVER.has(error.code)) return new Denied(grpc.status[error.code], `the Workload API refuses this: ${error.details}`);
  return new Unavailable("unavailable", `the Workload API cannot answer now: ${error.details}; check that it runs`);
}

/** Decodes the default identity, the first. Throws `Unusable`. */
function read(message: Message): Current {
  const svid = message["svids"]?.[0];
  if (!svid?.spiffe_id || !svid.x509_svid?.length || !svid.x509_svid_key?.length || !svid.bundle?.length) {
    throw new Unusable("answer", "the Workload API's answer lacks a mandatory field");
  }
  const credential = credentialOf(splitDer(svid.x509_svid), readKey(svid.x509_svid_key));
  if (credential.spiffeId !== svid.spiffe_id) throw new Unusable("answer", "the SPIFFE ID differs from the certificate's");
  if (credential.expiresAt <= Date.now() / 1000) throw new Unusable("answer", "the certificate has expired");
  return { credential, roots: pemOf(splitDer(svid.bundle)), sequence: 0 };
}
