/** What keeps an identity alive: its state, and what changes it. */
import { setMaxListeners } from "node:events";
import type { Credential } from "./certificate.js";
import { Expired, NoIdentity, Revoked, Unavailable } from "./errors.js";
import type { Connection, Issuer } from "./issuer.js";
import { Tokens } from "./tokens.js";

/** One certificate with its key, and the roots of our trust domain, PEM. */
export interface Current {
  credential: Credential;
  roots: string;
  /** Sequence of the bundle; a lower one never replaces it. */
  sequence: number;
}

/** A token, with its expiry in unix seconds. */
export interface Minted {
  text: string;
  expiresAt: number;
}

/** An identity and what follows it in the background. Nothing here keeps the process alive. */
export abstract class Keeper {
  /** Where the issuer is, if that is known. */
  issuer: Issuer | undefined;
  readonly tokens = new Tokens();
  protected held: Current | undefined;
  protected over: Revoked | undefined;
  readonly #ended = new AbortController();
  readonly #closed = new AbortController();

  constructor() {
    // Each sub-agent and each request that can be given up listens; none of them is a leak.
    setMaxListeners(0, this.#ended.signal, this.#closed.signal);
  }

  /** Aborted with the reason when the identity has ended. */
  get ended(): AbortSignal {
    return this.#ended.signal;
  }

  /** Aborted when the identity has ended or is closed. */
  get stopped(): AbortSignal {
    return this.#closed.signal;
  }

  /** The newest certificate. Throws `Revoked` if the identity has ended. */
  current(): Current {
    if (!this.over && this.held && this.held.credential.expiresAt <= Date.now() / 1000) {
      this.endBecause(new Expired("expired", "it could not be renewed in time: check that the issuer runs"));
    }
    if (this.over) throw this.over;
    if (!this.held) throw new Unavailable("no_identity_yet", "no identity has arrived yet");
    return this.held;
  }

  /** Ends the identity. Only the first reason counts. */
  endBecause(why: Revoked): void {
    if (this.over) return;
    this.over = why;
    this.tokens.clear();
    this.#ended.abort(why);
    this.close();
  }

  /** Stops what runs in the background. The identity itself goes on until its certificate expires. */
  close(): void {
    this.#closed.abort();
  }

  /** Mints a token; `forAgent` is a sub-agent without a key. */
  abstract mint(audience: string, forAgent?: string): Promise<Minted>;
  /** Obtains an access token; without scopes for all that may be given. */
  abstract exchange(audience: string, scopes: readonly string[], forAgent?: string): Promise<Minted>;
  /** Ends the identity at the issuer. */
  abstract end(): Promise<void>;
  /** Makes calls to the issuer as this identity. */
  abstract connected<T>(use: (connection: Connection, at: Issuer) => Promise<T>): Promise<T>;

  /** Makes one call to the issuer that is about this identity. */
  asked<T>(call: (connection: Connection) => Promise<T>): Promise<T> {
    return this.connected(call);
  }
}

/** The error for what only the issuer can do. */
export const noIssuer = (): NoIdentity =>
  new NoIdentity("no_issuer", "it is not known where the issuer is: set MAYFLY_SERVER=host:port, or give { server: 'host:port' }");
