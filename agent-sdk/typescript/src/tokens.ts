/** A cache of the tokens of one identity, one for each audience. */

/** Most cached tokens. When it is full, the token that expires first is removed. */
export const MOST = 64;
/** Seconds: a token that expires within this time is not returned, because the receiver's clock may be ahead. */
export const LAST = 5;

/** Gives the token of an audience until half of its life, and in need until its end. */
export class Tokens {
  #tokens = new Map<string, { text: string; expiresAt: number; half: number }>();

  constructor(private now: () => number = () => Date.now() / 1000) {}

  /** A token with at least half of its life left. */
  fresh(audience: string): string | undefined {
    const token = this.#tokens.get(audience);
    return token && this.now() < token.half ? token.text : undefined;
  }

  /** A token that is still valid, for when no new one can be minted. */
  holding(audience: string): string | undefined {
    const token = this.#tokens.get(audience);
    return token && this.now() + LAST < token.expiresAt ? token.text : undefined;
  }

  /** Keeps a token that was minted just now. */
  put(audience: string, text: string, expiresAt: number): void {
    const now = this.now();
    this.#tokens.delete(audience);
    for (const [key, token] of this.#tokens) if (token.expiresAt <= now) this.#tokens.delete(key);
    if (this.#tokens.size >= MOST) {
      const [first] = [...this.#tokens].sort(([, a], [, b]) => a.expiresAt - b.expiresAt);
      if (first) this.#tokens.delete(first[0]);
    }
    this.#tokens.set(audience, { text, expiresAt, half: now + Math.max(expiresAt - now, 0) / 2 });
  }

  /** Forgets all of them. */
  clear(): void {
    this.#tokens.clear();
  }
}
