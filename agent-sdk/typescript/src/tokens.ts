/** A cache of the tokens of one identity, one for each audience and scope. */

/** Most cached tokens. When it is full, the token that expires first is removed. */
export const MOST = 64;
/** Seconds: a token that expires within this time is not returned, because the receiver's clock may be ahead. */
export const LAST = 5;

/** What a token is for, as a key: an audience, and the scopes of an access token; without them a JWT-SVID. */
export const keyOf = (audience: string, scopes?: readonly string[]): string => JSON.stringify([audience, ...(scopes ? [scopes] : [])]);

/** Scopes in one spelling. They are a string with spaces, as OAuth has it, or a list. */
export const scopesOf = (scope: string | readonly string[] | undefined): string[] | undefined =>
  scope === undefined ? undefined : [...new Set(typeof scope === "string" ? scope.split(/\s+/) : scope)].filter(Boolean).sort();

/** What a token of ours says; nothing if it cannot be read. Its signature is for those who receive it. */
export function claimsOf(token: string): Record<string, unknown> {
  try {
    const claims: unknown = JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString());
    return claims && typeof claims === "object" && !Array.isArray(claims) ? (claims as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

/** Whether a token would be refused if it was given out again: one that is for a single use, and a JWT-SVID for the issuer itself. */
export function acceptedOnce(key: string, text: string): boolean {
  const claims = claimsOf(text);
  return (claims["single_use"] ?? false) !== false || key === keyOf(String(claims["iss"]));
}

/** Gives the token for a key until half of its life, and in need until its end. */
export class Tokens {
  #tokens = new Map<string, { text: string; expiresAt: number; half: number }>();

  constructor(private now: () => number = () => Date.now() / 1000) {}

  /** A token with at least half of its life left. */
  fresh(key: string): string | undefined {
    const token = this.#tokens.get(key);
    return token && this.now() < token.half ? token.text : undefined;
  }

  /** A token that is still valid, for when no new one can be minted. */
  holding(key: string): string | undefined {
    const token = this.#tokens.get(key);
    return token && this.now() + LAST < token.expiresAt ? token.text : undefined;
  }

  /** Keeps a token that was minted just now. */
  put(key: string, text: string, expiresAt: number): void {
    const now = this.now();
    this.#tokens.delete(key);
    for (const [of, token] of this.#tokens) if (token.expiresAt <= now) this.#tokens.delete(of);
    if (acceptedOnce(key, text)) return;
    if (this.#tokens.size >= MOST) {
      const [first] = [...this.#tokens].sort(([, a], [, b]) => a.expiresAt - b.expiresAt);
      if (first) this.#tokens.delete(first[0]);
    }
    this.#tokens.set(key, { text, expiresAt, half: now + Math.max(expiresAt - now, 0) / 2 });
  }

  /** Forgets access tokens: one that is bound to a certificate is of no use with its successor. */
  forgetAccess(): void {
    for (const key of this.#tokens.keys()) if ((JSON.parse(key) as unknown[]).length > 1) this.#tokens.delete(key);
  }

  /** Forgets all of them. */
  clear(): void {
    this.#tokens.clear();
  }
}
