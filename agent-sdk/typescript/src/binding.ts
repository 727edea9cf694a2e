/** What the certificate of an agent says beyond its ID. This reads our own; those of others are verified by the guard. */
import { isUtf8 } from "node:buffer";
import { Der, extensionOf, parseId, SpiffeError } from "@mayfly/spiffe";
import { Unusable } from "./errors.js";

/** A person, as their OpenID provider names them. */
export interface User {
  iss: string;
  sub: string;
}

/** For whom an agent acts, and what it may do. */
export interface Binding {
  /** 64 hex digits; absent for an autonomous agent. */
  delegationId: string | undefined;
  user: User | undefined;
  /** SPIFFE IDs from the parent up to the root workload. */
  chain: string[];
  mode: "delegated" | "autonomous";
  scopes: string[];
  leaseExpiresAt: Date;
}

/** OID of the extension, unless `MAYFLY_BINDING_OID` names another. */
export const DEFAULT_OID = "1.3.6.1.4.1.32473.1";

/** Reads the binding of a certificate, DER. Throws `Unusable` if there is none or it cannot be read. */
export function bindingOf(certificate: Uint8Array, oid = process.env["MAYFLY_BINDING_OID"] ?? DEFAULT_OID): Binding {
  const value = readable(() => extensionOf(certificate, oidOf(oid)));
  if (value) return bindingOfValue(value);
  throw new Unusable("binding", `the certificate has no binding ${oid}: set MAYFLY_BINDING_OID as the issuer has it`);
}

/** Most bytes of the value of the extension. */
const MOST = 2048;
/** Most levels of a tree, with the root workload. */
const DEEPEST = 17;
/** The last time that a `Date` can say, in milliseconds. */
const LATEST = 8.64e15;
const AGENT = /^spiffe:\/\/[a-z0-9._-]+\/agent\/[a-z][a-z0-9-]{0,31}\/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** Reads the value of the extension, which has one spelling. Throws `Unusable`. */
export const bindingOfValue = (value: Uint8Array): Binding => readable(() => read(value));

function read(value: Uint8Array): Binding {
  const outside = new Fields(value);
  const fields = outside.inside(0x30);
  outside.end();
  insist(value.length <= MOST, "it is too long");
  insist(fields.number() === 1n, "its version is unknown");
  fields.octets(16); // incarnation
  const revision = fields.number();
  const stamps = fields.inside(0x30);
  const subjects = new Set<string>();
  for (; stamps.more; ) {
    const stamp = stamps.inside(0x30);
    const subject = stamp.octets(16).toString("hex");
    insist(stamp.number() <= revision && !subjects.has(subject), "a stamp is younger than the credential, or there twice");
    stamp.end();
    subjects.add(subject);
  }
  const delegationId = fields.optional(0xa0, (inside) => inside.octets(32).toString("hex"));
  const user = fields.optional(0xa1, (inside) => {
    const names = inside.inside(0x30);
    const named = { iss: names.text(), sub: names.text() };
    names.end();
    return named;
  });
  const chain = fields.texts();
  const mode = fields.boolean() ? "autonomous" : "delegated";
  const scopes = fields.texts();
  const leaseExpiresAt = new Date(Math.min(Number(fields.number()) * 1000, LATEST));
  fields.end();
  insist(subjects.size > 0, "it has no stamps");
  insist(chain.length > 0 && chain.length <= DEEPEST && chain.every((id) => parseId(id)), "its chain has no length of a tree");
  // Agents below one workload.
  insist(chain.every((id, at) => AGENT.test(id) === (at < chain.length - 1)), "its chain is not one of agents below a workload");
  const delegated = mode === "delegated";
  insist((user !== undefined) === delegated && (delegationId !== undefined) === delegated, "its user, delegation and mode contradict each other");
  insist(!user || (user.iss !== "" && user.sub !== ""), "its user has no name");
  insist(scopes.every((scope, at) => at === 0 || Buffer.compare(Buffer.from(scopes[at - 1] ?? ""), Buffer.from(scope)) < 0), "its scopes are not in order");
  return { delegationId, user, chain, mode, scopes, leaseExpiresAt };
}

function insist(holds: boolean, what: string): void {
  if (!holds) throw new Unusable("binding", `the certificate's binding cannot be read: ${what}`);
}

function readable<T>(work: () => T): T {
  try {
    return work();
  } catch (e) {
    throw e instanceof SpiffeError ? new Unusable("binding", "the certificate's binding cannot be read") : e;
  }
}

/** Elements of a binding, in order. */
class Fields extends Der {
  override inside(tag: number): Fields {
    return new Fields(this.take(tag));
  }

  text(): string {
    const bytes = this.take(0x0c);
    insist(isUtf8(bytes), "a text is not UTF-8");
    return bytes.toString("utf8");
  }

  texts(): string[] {
    const items = this.inside(0x30);
    const found: string[] = [];
    while (items.more) found.push(items.text());
    return found;
  }

  octets(length: number): Buffer {
    const bytes = this.take(0x04);
    insist(bytes.length === length, "a field has another length");
    return bytes;
  }

  /** Of 64 bits, not negative, without a zero that is not needed. */
  number(): bigint {
    const bytes = this.take(0x02);
    const [first = 0x80, second = 0x80] = bytes;
    insist(first < 0x80 && !(first === 0 && bytes.length > 1 && second < 0x80), "a number is empty, negative or padded");
    const value = BigInt(`0x${bytes.toString("hex")}`);
    insist(value < 1n << 64n, "a number has more than 64 bits");
    return value;
  }

  boolean(): boolean {
    const bytes = this.take(0x01);
    insist(bytes.length === 1 && (bytes[0] === 0 || bytes[0] === 0xff), "a boolean is neither true nor false");
    return bytes[0] === 0xff;
  }

  optional<T>(tag: number, read: (inside: Fields) => T): T | undefined {
    if (this.tag !== tag) return undefined;
    const inside = this.inside(tag);
    const value = read(inside);
    inside.end();
    return value;
  }
}

function oidOf(dotted: string): Buffer {
  const [first = 0, second = 0, ...others] = dotted.split(".").map(Number);
  const bytes: number[] = [];
  for (let arc of [40 * first + second, ...others]) {
    const sevens = [arc % 128];
    while ((arc = Math.floor(arc / 128)) > 0) sevens.unshift(0x80 | arc % 128);
    bytes.push(...sevens);
  }
  return Buffer.from(bytes);
}
