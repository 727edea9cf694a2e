/** What goes wrong, and what to do. Each error has a stable `code`, and says whether the same call may succeed later. */
export class MayflyError extends Error {
  /** Stable label for programs and logs, such as `EXCEEDS_AUTHORITY` or `unavailable`. */
  readonly code: string;
  /** What happened and what to do, for people. */
  readonly hint: string;
  /** Seconds after which to ask again, where the issuer says so. */
  readonly retryAfter: number | undefined;

  constructor(code: string, hint: string, retryAfter?: number) {
    super(`${code}: ${hint}`);
    this.name = new.target.name;
    this.code = code;
    this.hint = hint;
    this.retryAfter = retryAfter;
  }

  /** Whether the same call may succeed later although nobody does anything else. */
  get transient(): boolean {
    return this.retryAfter !== undefined;
  }
}

/** The issuer denied this one call; the identity stays as it is. A limit that is reached has a `retryAfter` in seconds. */
export class Denied extends MayflyError {}

/** A budget has less left than was asked for, and nothing was spent. */
export class Exhausted extends Denied {
  /** `ops`, `tokens` or `usd`. */
  readonly unit: string;
  /** What is left of it. */
  readonly left: number;
  /** Whose budget it is: the agent itself, or one above it; with the class that sets it, and its owner. Empty for a reservation. */
  readonly agent: string;
  readonly agentClass: string;
  readonly owner: string;

  constructor(code: string, hint: string, said: ReadonlyMap<string, string> = new Map()) {
    super(code, hint);
    this.unit = (said.get("limit") ?? "").replace(/^budget\./, "");
    this.left = Number(said.get("left") ?? 0) / (this.unit === "usd" ? 1e6 : 1);
    this.agent = said.get("agent") ?? "";
    this.agentClass = said.get("class") ?? "";
    this.owner = said.get("owner") ?? "";
  }
}

/** The issuer, the Workload API or the guard cannot be reached, is overloaded or has failed. Ask again. */
export class Unavailable extends MayflyError {
  override get transient(): boolean {
    return true;
  }
}

/** The identity has ended for good: it was revoked, replaced, ended or it expired. Stop working, or obtain a new identity. */
export class Revoked extends MayflyError {}

/** The last certificate expired: the lease has ended, or it was not renewed in time. */
export class Expired extends Revoked {}

/** This process ended the identity. */
export class Ended extends Revoked {}

/** This process has no identity: it was not started by `mayfly run`, and no ticket or folder was given. */
export class NoIdentity extends MayflyError {}

/** A ticket, folder, address or answer that was given cannot be used. */
export class Unusable extends MayflyError {}

/** Refused as UNAUTHENTICATED with one of these, the caller's certificate is refused for good. */
export const FINAL: ReadonlySet<string> = new Set([
  "AGENT_ENDED", "AGENT_EXPIRED", "AGENT_ORPHANED", "AGENT_REVOKED", "AGENT_UNKNOWN", "AUTHORITY_TAINTED",
  "CREDENTIAL_EXPIRED", "CREDENTIAL_REUSED", "CREDENTIAL_REVOKED", "GENERATION_REPLACED", "KEY_REVOKED", "WORKLOAD_UNKNOWN",
]);
/** Those of them that mean that time has run out. */
export const EXPIRED: ReadonlySet<string> = new Set(["AGENT_EXPIRED", "CREDENTIAL_EXPIRED"]);
