/** What the certificate of an agent says beyond its ID. This reads our own; those of others are verified by the guard. */
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
  const fields = new Der(certificate).inside(0x30).inside(0x30);
  while (fields.more && fields.tag !== 0xa3) fields.skip();
  const extensions = fields.inside(0xa3).inside(0x30);
  const wanted = oidOf(oid);
  while (extensions.more) {
    const extension = extensions.inside(0x30);
    const found = extension.take(0x06).equals(wanted);
    if (extension.tag === 0x01) extension.skip();
    const value = extension.take(0x04);
    if (found) return read(new Der(value).inside(0x30));
  }
  throw new Unusable("binding", `the certificate has no binding ${oid}: set MAYFLY_BINDING_OID as the issuer has it`);
}

function read(fields: Der): Binding {
  if (fields.number() !== 1) throw new Unusable("binding", "the version of the binding is unknown");
  fields.take(0x04); // incarnation
  fields.number(); // revision
  fields.take(0x30); // stamps
  const delegationId = fields.tag === 0xa0 ? fields.inside(0xa0).take(0x04).toString("hex") : undefined;
  let user: User | undefined;
  if (fields.tag === 0xa1) {
    const names = fields.inside(0xa1).inside(0x30);
    user = { iss: names.text(), sub: names.text() };
  }
  const chain = fields.texts();
  const mode = fields.take(0x01)[0] ? "autonomous" : "delegated";
  const scopes = fields.texts();
  const leaseExpiresAt = new Date(fields.number() * 1000);
  if (chain.length === 0 || (mode === "delegated") !== (user !== undefined)) {
    throw new Unusable("binding", "the binding contradicts itself");
  }
  return { delegationId, user, chain, mode, scopes, leaseExpiresAt };
}

/** Reads elements in order. */
class Der {
  #rest: Buffer;

  constructor(bytes: Uint8Array) {
    this.#rest = Buffer.from(bytes);
  }

  get tag(): number | undefined {
    return this.#rest[0];
  }

  get more(): boolean {
    return this.#rest.length > 0;
  }

  take(tag: number | undefined): Buffer {
    let size = this.#rest[1] ?? 0;
    let head = 2;
    if (size >= 0x80) {
      head += size - 0x80;
      // One byte is an indefinite length, and more than four are longer than any certificate.
      size = head < 3 || head > 6 || this.#rest.length < head ? Infinity : this.#rest.readUIntBE(2, head - 2);
    }
    if (tag === undefined || this.tag !== tag || head + size > this.#rest.length) {
      throw new Unusable("binding", "the certificate's binding cannot be read");
    }
    const content = this.#rest.subarray(head, head + size);
    this.#rest = this.#rest.subarray(head + size);
    return content;
  }

  skip(): void {
    this.take(this.tag);
  }

  inside(tag: number): Der {
    return new Der(this.take(tag));
  }

  text(): string {
    return this.take(0x0c).toString("utf8");
  }

  texts(): string[] {
    const items = this.inside(0x30);
    const found: string[] = [];
    while (items.more) found.push(items.text());
    return found;
  }

  number(): number {
    return this.take(0x02).reduce((value, byte) => value * 256 + byte, 0);
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
