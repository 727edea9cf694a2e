/** An identity whose key is in this process: it renews itself, follows the bundles, and hears of its revocation. */
import type { KeyObject } from "node:crypto";
import { credentialOf, newKey, pemOf, request } from "./certificate.js";
import { Ended, Expired, MayflyError, Revoked, Unavailable, Unusable } from "./errors.js";
import { Connection, errorOf, type Issuer, type Message } from "./issuer.js";
import { Keeper, type Current, type Minted } from "./keeper.js";
import * as pace from "./pace.js";

/** Renews itself until it has ended or is closed. */
export class Own extends Keeper {
  readonly #connection: Connection;

  constructor(
    at: Issuer,
    first: Current,
    /** Unix seconds beyond which no renewal is possible; absent for a workload. */
    private leaseEndsAt: number | undefined,
  ) {
    super();
    if (first.credential.trustDomain !== at.trustDomain) {
      throw new Unusable("trust_domain", "the certificate is of another trust domain than the issuer");
    }
    this.issuer = at;
    this.held = first;
    this.#connection = new Connection(at, first.credential, first.roots);
    void this.#renew();
    void this.#follow();
  }

  async mint(audience: string, forAgent = ""): Promise<Minted> {
    const { svid } = await this.connected((connection) => connection.call("MintJwt", { audience, for_agent: forAgent }));
    // If the identity was revoked in the meantime, the token must not be handed out.
    this.current();
    if (!svid?.token || !svid.expires_at) throw new Unusable("answer", "the issuer's answer has no token");
    return { text: svid.token, expiresAt: Number(svid.expires_at.seconds) };
  }

  async exchange(audience: string, scopes: readonly string[], forAgent = ""): Promise<Minted> {
    const got = await this.connected((connection) => connection.call("Exchange", { audience, scopes, for_agent: forAgent }));
    // If the identity was revoked in the meantime, the token must not be handed out.
    this.current();
    return exchanged(got);
  }

  async end(): Promise<void> {
    if (!this.over && this.current().credential.spiffeId.includes("/agent/")) {
      try {
        await this.#connection.call("End", {});
      } catch (e) {
        // Ended for another reason already: the result is the same.
        if (!(e instanceof Revoked)) throw e;
      }
    }
    this.endBecause(new Ended("ended", "this process ended the identity"));
  }

  async connected<T>(use: (connection: Connection, at: Issuer) => Promise<T>): Promise<T> {
    this.current();
    try {
      return await use(this.#connection, this.#connection.at);
    } catch (e) {
      if (e instanceof Revoked) this.endBecause(e);
      throw e;
    }
  }

  override close(): void {
    super.close();
    this.#connection.close();
  }

  async #renew(): Promise<void> {
    let at = this.#nextRenewal();
    for (;;) {
      const endsAt = this.#now().credential.expiresAt;
      if (await pace.until(Math.min(at ?? endsAt, endsAt), this.stopped)) return;
      if (Date.now() / 1000 >= endsAt) {
        const why = at === undefined ? "its lease has ended" : "it could not be renewed in time: check that the issuer runs";
        return this.endBecause(new Expired("expired", why));
      }
      try {
        await this.#renewOnce();
        at = this.#nextRenewal();
      } catch (e) {
        if (e instanceof Revoked) return this.endBecause(e);
        // A certificate that is still valid is never given up.
        const now = Date.now() / 1000;
        at = now + pace.again(Math.max(endsAt - now, 0));
      }
    }
  }

  /** `undefined` if the certificate lasts as long as the lease, so that a renewal would gain nothing. */
  #nextRenewal(): number | undefined {
    const { expiresAt } = this.#now().credential;
    if (this.leaseEndsAt !== undefined && expiresAt >= this.leaseEndsAt) return undefined;
    const now = Date.now() / 1000;
    return now + pace.renewal(Math.max(expiresAt - now, 0));
  }

  async #renewOnce(): Promise<void> {
    const key = newKey();
    let next = answered(key, await this.#connection.call("Renew", { csr: request(key) }));
    const known = this.#now();
    if (next.credential.spiffeId !== known.credential.spiffeId) {
      throw new Unusable("answer", "the renewed certificate has another SPIFFE ID");
    }
    if (next.sequence < known.sequence) next = { ...known, credential: next.credential };
    this.tokens.forgetAccess();
    // ORDER: before the certificate is published, so that no new connection is made with its predecessor.
    this.#connection.show(next.credential, next.roots);
    this.held = next;
  }

  #now(): Current {
    if (!this.held) throw new Unavailable("no_identity_yet", "no identity has arrived yet");
    return this.held;
  }

  /** This stream is also the fastest news of a revocation: the issuer closes it, and gives the reason when it is opened again. */
  async #follow(): Promise<void> {
    for (let failures = 0; !this.stopped.aborted; ) {
      const { credential } = this.#now();
      const opened = Date.now();
      const { heard, why } = await this.#listen();
      if (why instanceof Revoked) return this.endBecause(why);
      if (heard && Date.now() - opened >= pace.STOOD * 1000) failures = 0;
      // Opened again at once with the renewed certificate, which also tells the issuer that it is in use.
      if (credential !== this.#now().credential) {
        failures = 0;
        continue;
      }
      const left = Math.max(credential.expiresAt - Date.now() / 1000, 0);
      await pace.sleep(failures ? pace.back(left) : pace.calls(0), this.stopped);
      failures++;
    }
  }

  #listen(): Promise<{ heard: boolean; why: MayflyError }> {
    return new Promise((resolve) => {
      let heard = false;
      const credential = this.#now().credential;
      let stream: ReturnType<Connection["watchBundle"]>;
      try {
        stream = this.#connection.watchBundle();
      } catch (e) {
        return resolve({ heard, why: errorOf(e) });
      }
      const end = (why: MayflyError): void => {
        clearInterval(look);
        stream.cancel();
        resolve({ heard, why });
      };
      // The channel of the predecessor goes on until its calls have ended: this one ends when the certificate was replaced.
      const look = setInterval(() => {
        if (credential !== this.held?.credential || this.stopped.aborted) end(new Unavailable("moved", "it was renewed"));
      }, 50);
      look.unref();
      stream.on("data", (message: Message) => {
        try {
          this.#take(message["bundle"]);
          heard = true;
        } catch (e) {
          end(errorOf(e));
        }
      });
      stream.on("error", (e) => end(errorOf(e)));
      stream.on("end", () => end(new Unavailable("unavailable", "the stream ended")));
    });
  }

  #take(bundle: Message | undefined): void {
    const known = this.#now();
    if (!bundle?.["x509_authorities"]?.length || bundle["trust_domain"] !== known.credential.trustDomain) {
      throw new Unusable("answer", "the bundle is empty or of another trust domain");
    }
    const sequence = Number(bundle["sequence"]);
    if (sequence < known.sequence) return;
    const roots = pemOf(bundle["x509_authorities"]);
    this.held = { ...known, roots, sequence };
    this.#connection.believe(roots);
  }
}

/** Accepts the issuer's answer only if it is complete and certifies this key. Throws `Unusable`. */
export function answered(key: KeyObject, got: Message): Current {
  const { svid, bundle } = got;
  if (!svid?.certificates?.length || !bundle?.x509_authorities?.length) {
    throw new Unusable("answer", "the issuer's answer is incomplete: check that both ends are of the same release");
  }
  const credential = credentialOf(svid.certificates, key);
  if (credential.spiffeId !== svid.spiffe_id || bundle.trust_domain !== credential.trustDomain) {
    throw new Unusable("answer", "the certificate has another SPIFFE ID than the answer");
  }
  return { credential, roots: pemOf(bundle.x509_authorities), sequence: Number(bundle.sequence) };
}

/** The access token of an answer. Throws `Unusable` if it lacks one. */
export function exchanged(got: Message): Minted {
  if (!got["access_token"] || !got["expires_at"]) throw new Unusable("answer", "the issuer's answer has no token");
  return { text: got["access_token"], expiresAt: Number(got["expires_at"].seconds) };
}

/** When the lease of an answer ends, in unix seconds; `undefined` for a workload. */
export function leaseOf(got: Message): number | undefined {
  const at = got["agent"]?.lease_expires_at;
  return at ? Number(at.seconds) : undefined;
}
