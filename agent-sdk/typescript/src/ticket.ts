/** Tickets: one string with the issuer's address, its root and a secret for one use. */
import { Unusable } from "./errors.js";

/** Every ticket begins with this. */
export const PREFIX = "mayfly1.";
const LONGEST = 1 + 2 * 256 + 2 * 32;

/** What a ticket says. */
export interface Ticket {
  /** `host:port` of the issuer. */
  address: string;
  trustDomain: string;
  /** SHA-256 of the root's SubjectPublicKeyInfo. */
  root: Buffer;
  secret: Buffer;
}

/** Parses a ticket strictly. Throws `Unusable`, which never repeats the text: it may hold a secret. */
export function parseTicket(text: string): Ticket {
  const version = new Unusable("version", "this ticket has an unknown version: use the package of the issuer's release");
  if (!text.startsWith(PREFIX)) {
    if (/^mayfly[0-9]+\./.test(text)) throw version;
    throw new Unusable("not_a_ticket", `give the whole ticket, which begins with \`${PREFIX}\`, without spaces and line breaks`);
  }
  const damaged = new Unusable("damaged", "this ticket is damaged: copy the whole string again, or ask for a new one");
  const encoded = text.slice(PREFIX.length);
  const raw = Buffer.from(encoded, "base64url");
  // INVARIANT: a ticket has one spelling.
  if (raw.length > LONGEST || raw.toString("base64url") !== encoded) throw damaged;
  if (raw[0] !== 1) throw version;
  let at = 1;
  const texts = [0, 1].map(() => {
    const length = raw[at];
    if (length === undefined || raw.length < at + 1 + length) throw damaged;
    const bytes = raw.subarray(at + 1, at + 1 + length);
    at += 1 + length;
    const read = bytes.toString("utf8");
    if (!Buffer.from(read, "utf8").equals(bytes)) throw damaged;
    return read;
  });
  if (raw.length !== at + 64) throw damaged;
  const [address = "", trustDomain = ""] = texts;
  if (!/^[a-z0-9._-]{1,255}$/.test(trustDomain)) {
    throw new Unusable("trust_domain", "the ticket's trust domain is not valid: ask for a new ticket");
  }
  checkAddress(address);
  return { address, trustDomain, root: raw.subarray(at, at + 32), secret: raw.subarray(at + 32) };
}

/** Returns host and port. Throws `Unusable` if the text is not `host:port`. */
export function checkAddress(text: string): { host: string; port: number } {
  const match = /^(?:\[([0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)\]|([A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?)):([1-9][0-9]{0,4})$/.exec(text);
  const host = match?.[1] ?? match?.[2] ?? "";
  const port = Number(match?.[3] ?? 0);
  if (!match || port > 65535 || text.length > 255 || host.includes("..")) {
    throw new Unusable("address", `\`${text.slice(0, 255)}\` is not an address: write host:port, with an IPv6 address in brackets`);
  }
  return { host, port };
}
