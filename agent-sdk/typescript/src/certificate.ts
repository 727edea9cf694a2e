/** Certificates and keys: what this package makes and reads of its own. */
import { createPublicKey, generateKeyPairSync, sign, X509Certificate, type KeyObject } from "node:crypto";
import { idOfNames, parseId, readKey as readAnyKey, SpiffeError } from "@mayfly/spiffe";
import { Unusable } from "./errors.js";

/** A certificate chain with its key. Leaf and key belong together: that was checked. */
export interface Credential {
  spiffeId: string;
  trustDomain: string;
  /** Unix seconds. */
  expiresAt: number;
  /** PEM: the leaf, then its issuing CA. */
  chainPem: string;
  keyPem: string;
  leaf: X509Certificate;
}

/** What a function of `@mayfly/spiffe` returns. Its errors become `Unusable`. */
export function usable<T>(work: () => T): T {
  try {
    return work();
  } catch (e) {
    throw e instanceof SpiffeError ? new Unusable(e.code, e.message) : e;
  }
}

/** Returns trust domain and path of a SPIFFE ID. Throws `Unusable` if it is not one in its only spelling. */
export const splitId = (text: string): { trustDomain: string; path: string } => usable(() => parseId(text));

/** The one SPIFFE ID in the `subjectAltName` of a certificate, as node writes it. Throws `Unusable`. */
export function idOf(subjectAltName: string | undefined): string {
  const id = usable(() => idOfNames(subjectAltName));
  if (!splitId(id).path) throw new Unusable("certificate", "the certificate is of a trust domain: its SPIFFE ID must have a path");
  return id;
}

/** Throws `Unusable` unless the first certificate is an X.509-SVID for this key. */
export function credentialOf(chain: readonly Uint8Array[], key: KeyObject): Credential {
  let certificates: X509Certificate[];
  try {
    certificates = chain.map((der) => new X509Certificate(der));
  } catch {
    throw new Unusable("certificate", "a certificate cannot be read");
  }
  const leaf = certificates[0];
  if (!leaf) throw new Unusable("certificate", "there is no certificate");
  const spiffeId = idOf(leaf.subjectAltName);
  if (!leaf.checkPrivateKey(key)) throw new Unusable("key", "the key does not belong to the certificate");
  return {
    spiffeId,
    trustDomain: splitId(spiffeId).trustDomain,
    expiresAt: Date.parse(leaf.validTo) / 1000,
    chainPem: toPem(certificates),
    keyPem: key.export({ type: "pkcs8", format: "pem" }) as string,
    leaf,
  };
}

/** Certificates in PEM, one after the other. Throws `Unusable`. */
export function pemOf(ders: readonly Uint8Array[]): string {
  try {
    return toPem(ders.map((der) => new X509Certificate(der)));
  } catch {
    throw new Unusable("certificate", "a certificate cannot be read");
  }
}

const toPem = (certificates: readonly X509Certificate[]): string => certificates.map((one) => one.toString()).join("");

/** The certificates of a PEM text, DER; at least one. Throws `Unusable`. */
export function fromPem(text: string): Buffer[] {
  const found = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  try {
    if (found.length > 0) return found.map((pem) => new X509Certificate(pem).raw);
  } catch {
    // Said below.
  }
  throw new Unusable("certificate", "there is no certificate in PEM form, or it is damaged");
}

/** Makes a P-256 key in this process. Only a request with its public half leaves it. */
export const newKey = (): KeyObject => generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;

/** Reads a PKCS#8 key. Throws `Unusable`, which does not repeat what was read. */
export const readKey = (pem: string): KeyObject => usable(() => readAnyKey(pem));

/** A PKCS#10 request, DER, with an empty subject: the issuer uses the public key alone. */
export function request(key: KeyObject): Buffer {
  const pair = createPublic(key);
  // RFC 2986: version 0, an empty name, the key, no attributes.
  const info = der(0x30, Buffer.from([0x02, 0x01, 0x00, 0x30, 0x00]), pair, Buffer.from([0xa0, 0x00]));
  const signature = sign("sha256", info, key);
  return der(0x30, info, ECDSA_WITH_SHA256, der(0x03, Buffer.from([0]), signature));
}

const createPublic = (key: KeyObject): Buffer => createPublicKey(key).export({ type: "spki", format: "der" }) as Buffer;
const ECDSA_WITH_SHA256 = Buffer.from("300a06082a8648ce3d040302", "hex");

function der(tag: number, ...parts: Buffer[]): Buffer {
  const content = Buffer.concat(parts);
  const size = content.length;
  const head = size < 0x80 ? [size] : size < 0x100 ? [0x81, size] : [0x82, size >> 8, size & 0xff];
  return Buffer.concat([Buffer.from([tag, ...head]), content]);
}
