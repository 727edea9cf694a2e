/** The identity of this program: who it is, its tokens, its TLS settings, and the agents that it spawns. */
import { randomUUID } from "node:crypto";
import { Agent } from "node:https";
import { connect as tlsConnect, type ConnectionOptions } from "node:tls";
import { bindingOf, type Binding, type User } from "./binding.js";
import * as budget from "./budget.js";
import type { Amount, BudgetLine, Reservation, Unit } from "./budget.js";
import { newKey, request, splitId } from "./certificate.js";
import { MayflyError, Unusable } from "./errors.js";
import { insist, isPeer, type Message } from "./issuer.js";
import type { Keeper } from "./keeper.js";
import { answered, leaseOf, Own } from "./own.js";
import { acceptedOnce, keyOf, scopesOf } from "./tokens.js";

/** Who a peer must be: a SPIFFE ID; every ID below one that ends with `/`; `spiffe://trust-domain` for everybody there; a function. */
export type Peer = string | ((id: string) => boolean);

/** What a spawn asks for. */
export interface Asked {
  /** All that is allowed, if left out. */
  scopes?: readonly string[];
  /** Audiences the agent may mint for; all that are allowed, if left out. */
  audiences?: readonly string[];
  /** Seconds; as long as allowed, if left out. */
  lease?: number;
  maxDepth?: number;
  /** For whom a workload's agent acts; an agent's child acts for the agent's own user. */
  userToken?: string;
  delegation?: string;
  autonomous?: boolean;
  /** Accept less than was asked for. */
  clip?: boolean;
  /**
   * A sub-agent of this process, without a key: cheaper, its tokens are bound to this identity's certificate, and it spawns nothing.
   * It is a `SubAgent`.
   */
  keyless?: boolean;
}

/** What an access token is to allow: `"mail:send mail:read"`, or a list; `""` asks for all that may be given. */
export type Scope = string | readonly string[];

/** An agent or a workload that renews itself in the background. After it has ended, whatever would use it throws `Revoked`. */
export class Identity {
  readonly #keeper: Keeper;
  readonly #minting = new Map<string, Promise<string>>();

  constructor(
    keeper: Keeper,
    /** What was asked for and not given, only after a spawn with `clip`. */
    readonly clipped: readonly string[] = [],
  ) {
    this.#keeper = keeper;
  }

  /** The SPIFFE ID. */
  get id(): string {
    return this.#keeper.current().credential.spiffeId;
  }

  /** Whether it is an agent, or else a workload. */
  get isAgent(): boolean {
    return this.id.includes("/agent/");
  }

  /** What the certificate says beyond the ID; `undefined` for a workload. Throws `Unusable` if it cannot be read. */
  get binding(): Binding | undefined {
    return this.isAgent ? bindingOf(this.#keeper.current().credential.leaf.raw) : undefined;
  }

  /** The user it acts for. */
  get user(): User | undefined {
    return this.binding?.user;
  }

  get scopes(): readonly string[] {
    return this.binding?.scopes ?? [];
  }

  /** SPIFFE IDs from the parent up to the root workload. */
  get chain(): readonly string[] {
    return this.binding?.chain ?? [];
  }

  /** When the certificate expires. It is renewed before. */
  get expiresAt(): Date {
    return new Date(this.#keeper.current().credential.expiresAt * 1000);
  }

  /** Aborted with a `Revoked` when the identity has ended: give it to whatever takes an `AbortSignal`. */
  get ended(): AbortSignal {
    return this.#keeper.ended;
  }

  /**
   * A token for one audience, to be sent as `Authorization: Bearer`. Without `scope` it is a JWT-SVID, and says all that the agent
   * may do; with `scope` it is an access token of the issuer for that and no more. Ask for it before each request: it is cached for
   * half of its life; if no new one can be had then, the cached one is returned until shortly before it expires.
   * Rejects with `Denied`, `Unavailable` or `Revoked`.
   */
  readonly token = async (audience: string, { scope }: { scope?: Scope } = {}): Promise<string> => {
    this.#keeper.current();
    const scopes = scopesOf(scope);
    const key = keyOf(audience, scopes);
    const fresh = this.#keeper.tokens.fresh(key);
    if (fresh !== undefined) return fresh;
    const running = this.#minting.get(key);
    if (running) {
      const text = await running;
      // One that is accepted once is for whoever obtained it.
      return acceptedOnce(key, text) ? this.#obtain(key, audience, scopes) : text;
    }
    const minting = this.#obtain(key, audience, scopes).finally(() => this.#minting.delete(key));
    this.#minting.set(key, minting);
    return minting;
  };

  /** For whatever takes a callback for client assertions. Each is a new JWT-SVID: an authorization server accepts an assertion once. */
  readonly assertion = async (audience: string): Promise<string> => (await this.#keeper.mint(audience)).text;

  async #obtain(key: string, audience: string, scopes: readonly string[] | undefined): Promise<string> {
    try {
      const { text, expiresAt } = scopes ? await this.#keeper.exchange(audience, scopes) : await this.#keeper.mint(audience);
      this.#keeper.tokens.put(key, text, expiresAt);
      return text;
    } catch (e) {
      const held = e instanceof MayflyError && e.transient ? this.#keeper.tokens.holding(key) : undefined;
      if (held === undefined) throw e;
      this.#keeper.current();
      return held;
    }
  }

  /** `fetch` with a token. Once the identity has ended it rejects with `Revoked`, also while an answer is awaited. */
  fetch(audience: string, asked: { scope?: Scope } = {}): typeof fetch {
    return async (input, init = {}) => {
      const given = new Request(input as Request, init);
      given.headers.set("authorization", `Bearer ${await this.token(audience, asked)}`);
      return fetch(given, { signal: AbortSignal.any([given.signal, this.ended]) });
    };
  }

  /** What MCP clients take as `authProvider`. */
  authProvider(audience: string, asked: { scope?: Scope } = {}): { token: () => Promise<string> } {
    return { token: () => this.token(audience, asked) };
  }

  /**
   * TLS settings for one connection as a client, with the newest certificate. The peer must be the one that was asked for; its host
   * name has no meaning. Make new ones for each connection. Throws `Revoked`, or `Unusable` if the rule is none.
   */
  tlsOptions(peer: Peer): ConnectionOptions {
    const { credential, roots } = this.#keeper.current();
    const allows = rule(peer, credential.trustDomain);
    return {
      key: credential.keyPem,
      cert: credential.chainPem,
      ca: roots,
      minVersion: "TLSv1.2",
      rejectUnauthorized: true,
      checkServerIdentity: (_, certificate) => isPeer(certificate.subjectaltname, allows),
    };
  }

  /** An `https.Agent` whose connections follow the rotation: `https.get(url, { agent })`. No session is resumed. */
  httpsAgent(peer: Peer): Agent {
    const agent = new Agent({ maxCachedSessions: 0, keepAlive: false });
    // What the caller says about TLS gives way: it could only make it weaker.
    const createConnection = (options: ConnectionOptions) => tlsConnect({ ...options, ...this.tlsOptions(peer), session: undefined });
    return Object.assign(agent, { createConnection });
  }

  /**
   * Spawns an agent below this identity; end it with `end()`, or by `await using`.
   * Rejects with `Denied`, `Unavailable` or `Revoked`.
   */
  async spawn(agentClass: string, asked: Asked = {}): Promise<Identity> {
    const key = asked.keyless ? undefined : newKey();
    const wanted = {
      class: agentClass,
      csr: key ? request(key) : Buffer.alloc(0),
      keyless: !key,
      scopes: asked.scopes ?? [],
      audiences: asked.audiences ?? [],
      lease_seconds: String(Math.max(Math.floor(asked.lease ?? 0), 0)),
      user_token: (asked.userToken ?? "").trim(),
      delegation: asked.delegation ?? "",
      mode: asked.autonomous ? "MODE_AUTONOMOUS" : "MODE_UNSPECIFIED",
      excess: asked.clip ? "EXCESS_CLIP" : "EXCESS_DENY",
      // A lost answer is asked for again without spawning a second agent.
      request_id: randomUUID(),
      ...(asked.maxDepth === undefined ? {} : { max_depth: asked.maxDepth }),
    };
    return insist(() =>
      this.#keeper.connected(async (connection, at) => {
        const got = await connection.call("Spawn", wanted);
        if (!key) return withoutKey(this, this.#keeper, got);
        return new Identity(new Own(at, answered(key, got), leaseOf(got)), got["clipped"] ?? []);
      }),
    );
  }

  /**
   * Spends from the agent's budget and from that of each agent above it; resolves to the least that any of them has left, and to
   * `undefined` if none is limited. A lost answer is asked for again without spending twice. Rejects with `Exhausted` if one of them
   * has less left: then nothing was spent.
   */
  async spend(unit: Unit, amount: Amount): Promise<number | undefined> {
    return budget.spend(this.#keeper, this.id, unit, amount);
  }

  /**
   * Holds a part of the same budgets for what may be spent in `life` seconds: ten minutes if left out, an hour at most. What is not
   * spent comes back: `await using held = await me.reserve("usd", "0.25")`. Rejects as `spend` does.
   */
  async reserve(unit: Unit, amount: Amount, { life = 0 }: { life?: number } = {}): Promise<Reservation> {
    return budget.reserve(this.#keeper, this.id, unit, amount, life);
  }

  /** What may be spent: for each unit the agent's own account, then those above it, the parent first. */
  async budget(): Promise<BudgetLine[]> {
    return budget.look(this.#keeper, this.id);
  }

  /** Ends the agent at the issuer, with everything below it; a workload is closed. Rejects with `Unavailable`. */
  async end(): Promise<void> {
    await this.#keeper.end();
  }

  /** Stops following and renewing; the agent itself goes on until its certificate expires. */
  close(): void {
    this.#keeper.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.end();
    } catch (e) {
      // It would hide what happened in the block; the agent ends with its certificate.
      if (!(e instanceof MayflyError)) throw e;
    } finally {
      this.close();
    }
  }
}

let withoutKey: (parent: Identity, keeper: Keeper, got: Message) => Identity;

/** Sub-agents are identities, and identities spawn them: whoever makes them says how. */
export const spawnsBy = (make: typeof withoutKey): void => void (withoutKey = make);

/** The rule for a peer's SPIFFE ID, which must be of our trust domain. Throws `Unusable`. */
export function rule(peer: Peer, own: string): (id: string) => boolean {
  let allows: (id: string) => boolean;
  if (typeof peer === "function") allows = peer;
  else {
    const { trustDomain, path } = splitId(peer.endsWith("/") ? peer.slice(0, -1) : peer);
    if (trustDomain !== own) throw new Unusable("peer", `there is no bundle of the peer's trust domain \`${trustDomain}\``);
    allows = peer.endsWith("/") ? (id) => id.startsWith(peer) : path ? (id) => id === peer : (id) => id.startsWith(`${peer}/`);
  }
  return (id) => splitId(id).trustDomain === own && allows(id) === true;
}

