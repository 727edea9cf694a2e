/** Sub-agents that are no processes: each has an id, scopes, a lease and an end of its own, and no key. Its parent presents. */
import { type Binding, type User } from "./binding.js";
import { Denied, Ended, EXPIRED, Expired, FINAL, Revoked, Unusable } from "./errors.js";
import { Identity, spawnsBy } from "./identity.js";
import type { Connection, Issuer, Message } from "./issuer.js";
import { Keeper, type Current, type Minted } from "./keeper.js";

/** An agent without a key, on the keeper of its parent. */
class Part extends Keeper {
  /** The certificate that the cached tokens are bound to. */
  #under: Current["credential"] | undefined;
  readonly #parentEnded: () => void;

  constructor(
    private parent: Keeper,
    readonly agent: Message,
  ) {
    super();
    this.issuer = parent.issuer;
    this.#parentEnded = () => this.endBecause(parent.ended.reason as Revoked);
    parent.ended.addEventListener("abort", this.#parentEnded, { once: true });
  }

  /** The certificate of the parent, which presents. Throws `Revoked` if this agent or its parent has ended. */
  override current(): Current {
    if (this.over) throw this.over;
    const current = this.parent.current();
    // A token that is bound to the certificate before is of no use on a connection with the next one.
    if (this.#under && this.#under !== current.credential) this.tokens.clear();
    this.#under = current.credential;
    return current;
  }

  mint(audience: string): Promise<Minted> {
    return this.#aboutMe(() => this.parent.mint(audience, this.agent["agent_id"]));
  }

  exchange(audience: string, scopes: readonly string[]): Promise<Minted> {
    return this.#aboutMe(() => this.parent.exchange(audience, scopes, this.agent["agent_id"]));
  }

  connected<T>(_: (connection: Connection, at: Issuer) => Promise<T>): Promise<T> {
    return Promise.reject(new Denied("PARENT_ONLY", "an agent without a key spawns nothing: the identity that spawned it does"));
  }

  override asked<T>(call: (connection: Connection) => Promise<T>): Promise<T> {
    return this.#aboutMe(() => this.parent.asked(call));
  }

  async end(): Promise<void> {
    if (!this.over) {
      const end = (connection: Connection) => connection.call("End", { agent: this.agent["agent_id"] });
      await this.#aboutMe(() => this.parent.connected(end)).catch((e) => {
        // Ended for another reason already: the result is the same.
        if (!(e instanceof Revoked)) throw e;
      });
    }
    this.endBecause(new Ended("ended", "this process ended the agent"));
  }

  override close(): void {
    super.close();
    this.parent.ended.removeEventListener("abort", this.#parentEnded);
  }

  /** A final reason that is not about the caller is about this agent; those about keys and authorities are about one call. */
  async #aboutMe<T>(ask: () => Promise<T>): Promise<T> {
    this.current();
    try {
      const answer = await ask();
      // If it ended in the meantime, the answer must not be handed out.
      this.current();
      return answer;
    } catch (e) {
      if (e instanceof Denied && FINAL.has(e.code) && e.code.startsWith("AGENT_")) {
        this.endBecause(new (EXPIRED.has(e.code) ? Expired : Revoked)(e.code, e.hint));
        this.current();
      }
      throw e;
    }
  }
}

/** An agent without a key of its own. In TLS its parent presents: `tlsOptions` has the parent's certificate. */
export class SubAgent extends Identity {
  readonly #part: Part;
  readonly #parent: Identity;

  constructor(parent: Identity, keeper: Keeper, got: Message) {
    const agent = got["agent"];
    if (!agent?.keyless || !agent.agent_id) {
      throw new Unusable("answer", "the issuer knows no agents without keys: check that both ends are of the same release");
    }
    const part = new Part(keeper, agent);
    super(part, got["clipped"] ?? []);
    this.#part = part;
    this.#parent = parent;
  }

  override get id(): string {
    this.#part.current();
    return this.#part.agent["agent_id"];
  }

  /** `undefined`: no certificate says it. Each token does. */
  override get binding(): Binding | undefined {
    return undefined;
  }

  override get user(): User | undefined {
    const user = this.#part.agent["user"];
    return user ? { iss: user.iss, sub: user.sub } : undefined;
  }

  override get scopes(): readonly string[] {
    return this.#part.agent["scopes"] ?? [];
  }

  override get chain(): readonly string[] {
    return [this.#parent.id, ...this.#parent.chain];
  }
}

spawnsBy((parent, keeper, got) => new SubAgent(parent, keeper, got));
