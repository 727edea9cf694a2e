/** X.509-SVIDs and X.509 bundles. */
import { createPrivateKey, X509Certificate, type KeyObject } from "node:crypto";
import { Der, extensionOf, splitDer } from "./der.js";
import { SpiffeError } from "./error.js";
import { parseId } from "./id.js";

const KEY_USAGE = Buffer.from("551d0f", "hex");
const BASIC_CONSTRAINTS = Buffer.from("551d13", "hex");
// Bits of the first byte of a key usage, RFC 5280 4.2.1.3.
const [DIGITAL_SIGNATURE, KEY_CERT_SIGN, CRL_SIGN] = [0x80, 0x04, 0x02];

/** A certificate that says who its holder is, with its key. They belong together: that was checked. */
export class X509Svid {
  readonly spiffeId: string;
  readonly trustDomain: string;

  /**
   * Throws `SpiffeError` unless the first certificate is a leaf with one SPIFFE ID and this key, and the others may sign. Whether the chain
   * leads to a bundle is not checked: whoever is shown it does that.
   */
  constructor(
    /** The leaf, then the CA certificates between it and the bundle. */
    readonly certificates: readonly X509Certificate[],
    readonly privateKey: KeyObject,
    /** Tells several SVIDs of one workload apart; empty for most. */
    readonly hint = "",
  ) {
    const [leaf, ...signers] = certificates;
    if (!leaf) throw new SpiffeError("certificate", "there is no certificate");
    this.spiffeId = idOfNames(leaf.subjectAltName);
    this.trustDomain = parseId(this.spiffeId).trustDomain;
    // X.509-SVID 4: a leaf signs no certificates and must be able to sign a handshake; a signing certificate must be a CA.
    const usage = keyUsageOf(leaf);
    if (isCa(leaf) || !(usage & DIGITAL_SIGNATURE) || usage & (KEY_CERT_SIGN | CRL_SIGN)) {
      throw new SpiffeError("certificate", "the first certificate is not a leaf: it must not be a CA, and its key usage must be digitalSignature");
    }
    if (signers.some((signer) => !isCa(signer) || !(keyUsageOf(signer) & KEY_CERT_SIGN))) {
      throw new SpiffeError("certificate", "a certificate after the first one is not a CA's");
    }
    if (!leaf.checkPrivateKey(privateKey)) throw new SpiffeError("key", "the key does not belong to the certificate");
  }

  /** From what the Workload API gives: DER certificates that follow one another, and a PKCS#8 key. Throws `SpiffeError`. */
  static parse(certificates: Uint8Array, key: Uint8Array, hint = ""): X509Svid {
    return new X509Svid(splitDer(certificates).map(certificateOf), readKey(key), hint);
  }

  get expiresAt(): Date {
    return new Date(this.certificates[0]?.validTo ?? Number.NaN);
  }

  /** The certificates in PEM, the leaf first. */
  get certificatePem(): string {
    return pemOf(this.certificates);
  }

  /** The key in PEM, PKCS#8. */
  get keyPem(): string {
    return this.privateKey.export({ type: "pkcs8", format: "pem" }) as string;
  }
}

/** The CA certificates of one trust domain. */
export class X509Bundle {
  constructor(
    readonly trustDomain: string,
    readonly authorities: readonly X509Certificate[],
  ) {}

  /** From DER certificates that follow one another. Throws `SpiffeError`. */
  static parse(trustDomain: string, certificates: Uint8Array): X509Bundle {
    return new X509Bundle(trustDomain, splitDer(certificates).map(certificateOf));
  }

  /** The certificates in PEM. */
  get pem(): string {
    return pemOf(this.authorities);
  }
}

/** The one SPIFFE ID in the `subjectAltName` of a certificate, as node writes it. Throws `SpiffeError`. */
export function idOfNames(subjectAltName: string | undefined): string {
  // Values with special characters are quoted; a SPIFFE ID has none.
  const uris = (subjectAltName ?? "").split(", ").filter((name) => name.startsWith("URI:"));
  const id = uris[0]?.slice(4) ?? "";
  if (uris.length !== 1) throw new SpiffeError("certificate", "the certificate is not an X.509-SVID: it must have one URI");
  parseId(id);
  return id;
}

/** Reads a PKCS#8 key, DER or PEM. Throws `SpiffeError`, which does not repeat what was read. */
export function readKey(key: string | Uint8Array): KeyObject {
  try {
    return typeof key === "string" ? createPrivateKey(key) : createPrivateKey({ key: Buffer.from(key), format: "der", type: "pkcs8" });
  } catch {
    throw new SpiffeError("key", "the private key cannot be read: give PKCS#8 that is not encrypted");
  }
}

function certificateOf(der: Uint8Array): X509Certificate {
  try {
    return new X509Certificate(der);
  } catch {
    throw new SpiffeError("certificate", "a certificate cannot be read");
  }
}

/** What the basic constraints say. `X509Certificate.ca` is something else: it is false for a CA whose key usage says otherwise. */
function isCa(certificate: X509Certificate): boolean {
  const value = extensionOf(certificate.raw, BASIC_CONSTRAINTS);
  if (!value) return false;
  const fields = new Der(value).inside(0x30);
  return fields.tag === 0x01 && fields.take(0x01)[0] !== 0;
}

function keyUsageOf(certificate: X509Certificate): number {
  const value = extensionOf(certificate.raw, KEY_USAGE);
  // A BIT STRING: how many bits of the last byte are unused, then the bits.
  return value?.[0] === 0x03 ? (value[3] ?? 0) : 0;
}

const pemOf = (certificates: readonly X509Certificate[]): string => certificates.map((one) => one.toString()).join("");
