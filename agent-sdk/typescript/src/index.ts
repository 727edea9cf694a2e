/** The identity of an AI agent: certificates that rotate, tokens, sub-agents, and verification. */
export type { Binding, User } from "./binding.js";
export { Reservation, type Amount, type BudgetLine, type Unit } from "./budget.js";
export { current, type Options } from "./current.js";
export { Denied, Ended, Exhausted, Expired, MayflyError, NoIdentity, Revoked, Unavailable, Unusable } from "./errors.js";
export { Guard, Refused, type Caller } from "./guard.js";
export { Identity, type Asked, type Peer, type Scope } from "./identity.js";
export { SubAgent } from "./keyless.js";
export { OAuthProvider, type OAuthAsked, type OAuthClient } from "./mcp.js";
