/** JWT-SVIDs and JWT bundles. */
import { createPublicKey, verify, type JsonWebKey, type KeyObject } from "node:crypto";
import { SpiffeError } from "./error.js";
import { parseId } from "./id.js";

/** A token that says who its holder is, to one audience. */
export interface JwtSvid {
  spiffeId: string;
  audience: readonly string[];
  expiresAt: Date;
  claims: Readonly<Record<string, unknown>>;
  /** What is sent. */
  token: string;
  /** Tells several SVIDs of one workload apart; empty for most. */
  hint: string;
}

/** The keys of one trust domain that sign JWT-SVIDs, by their ids. */
export class JwtBundle {
  constructor(
    readonly trustDomain: string,
    readonly authorities: ReadonlyMap<string, KeyObject>,
  ) {}

  /** From a JWK set. Throws `SpiffeError` if it is none, and if a key cannot be read or has no id. */
  static parse(trustDomain: string, jwks: Uint8Array | string): JwtBundle {
    const { keys } = objectOf(Buffer.from(jwks).toString("utf8"), "bundle") as { keys?: unknown };
    if (!Array.isArray(keys)) throw new SpiffeError("bundle", "the JWT bundle is not a JWK set");
    const authorities = new Map<string, KeyObject>();
    for (const jwk of keys as (JsonWebKey & { kid?: unknown })[]) {
      if (typeof jwk?.kid !== "string" || !jwk.kid) throw new SpiffeError("bundle", "a key of the JWT bundle has no `kid`");
      try {
        authorities.set(jwk.kid, createPublicKey({ key: jwk, format: "jwk" }));
      } catch {
        throw new SpiffeError("bundle", "a key of the JWT bundle cannot be read");
      }
    }
    return new JwtBundle(trustDomain, authorities);
  }
}

// JWT-SVID 2.1: these and no others.
const CURVES: Record<string, string> = { ES256: "prime256v1", ES384: "secp384r1", ES512: "secp521r1" };
const ALGORITHM = /^(RS|PS|ES)(256|384|512)$/;
/** Most characters of a token that is read. */
const LONGEST = 65536;
/** Seconds by which another clock may differ. */
const LEEWAY = 60;

/**
 * Reads a JWT-SVID without its signature: for a token that the Workload API gave this program. Throws `SpiffeError` if it is not one, has
 * expired, or is for none of the audiences.
 */
export function parseJwtSvid(token: string, audiences: readonly string[], hint = "", now = Date.now() / 1000): JwtSvid {
  return read(token, audiences, hint, now).svid;
}

/**
 * Verifies a JWT-SVID by the bundles, for one of the audiences. Throws `SpiffeError`. Whether it was shown before is not known here.
 */
export function validateJwtSvid(
  token: string,
  bundles: ReadonlyMap<string, JwtBundle>,
  audiences: readonly string[],
  now = Date.now() / 1000,
): JwtSvid {
  const { svid, algorithm, keyId, signed, signature } = read(token, audiences, "", now);
  const key = bundles.get(parseId(svid.spiffeId).trustDomain)?.authorities.get(keyId);
  if (!key) throw new SpiffeError("token", "no bundle has the key that signed the token");
  const { kind, hash, shape } = shapeOf(algorithm);
  const curve = CURVES[algorithm];
  // The key says which algorithms it is for: never the token alone.
  const fits = curve === undefined ? key.asymmetricKeyType === "rsa" : key.asymmetricKeyDetails?.namedCurve === curve;
  if (!fits || !verify(hash, signed, { key, ...shape }, signature)) {
    throw new SpiffeError("token", `the signature of the token is not one of its key by ${kind}`);
  }
  return svid;
}

function shapeOf(algorithm: string): { kind: string; hash: string; shape: object } {
  const hash = `sha${algorithm.slice(2)}`;
  if (algorithm.startsWith("ES")) return { kind: algorithm, hash, shape: { dsaEncoding: "ieee-p1363" } };
  // RFC 7518 3.5: the salt is as long as the hash.
  const pss = { padding: 6 /* RSA_PKCS1_PSS_PADDING */, saltLength: Number(algorithm.slice(2)) / 8 };
  return { kind: algorithm, hash, shape: algorithm.startsWith("PS") ? pss : { padding: 1 /* RSA_PKCS1_PADDING */ } };
}

interface Read {
  svid: JwtSvid;
  algorithm: string;
  keyId: string;
  signed: Buffer;
  signature: Buffer;
}

function read(token: string, audiences: readonly string[], hint: string, now: number): Read {
  const parts = token.length <= LONGEST ? /^([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)$/.exec(token) : null;
  const [, head = "", body = "", signature = ""] = parts ?? [];
  if (!parts) throw new SpiffeError("token", "the token is not a JWT in the compact form");
  const header = objectOf(decoded(head), "token");
  const claims = objectOf(decoded(body), "token");
  const { alg, kid, typ, crit } = header;
  const { sub, aud, exp, nbf, iat } = claims;
  if (typeof alg !== "string" || !ALGORITHM.test(alg)) throw new SpiffeError("token", "the token's algorithm is not one of JWT-SVIDs");
  if (typeof kid !== "string" || !kid) throw new SpiffeError("token", "the token names no key");
  if (typ !== undefined && typ !== "JWT" && typ !== "JOSE") throw new SpiffeError("token", "the token's type is not JWT");
  if (crit !== undefined) throw new SpiffeError("token", "the token has a critical header that is not known");
  if (typeof sub !== "string") throw new SpiffeError("token", "the token has no subject");
  parseId(sub);
  const audience = typeof aud === "string" ? [aud] : aud;
  if (!Array.isArray(audience) || audience.length === 0 || !audience.every((one) => typeof one === "string")) {
    throw new SpiffeError("token", "the token has no audience");
  }
  if (!audiences.some((one) => audience.includes(one))) throw new SpiffeError("token", "the token is for another audience");
  if (typeof exp !== "number" || !Number.isFinite(exp)) throw new SpiffeError("token", "the token does not say when it expires");
  if (exp <= now) throw new SpiffeError("expired", "the token has expired");
  for (const from of [nbf, iat]) {
    if (from !== undefined && (typeof from !== "number" || from > now + LEEWAY)) throw new SpiffeError("token", "the token is not valid yet");
  }
  return {
    svid: { spiffeId: sub, audience, expiresAt: new Date(exp * 1000), claims, token, hint },
    algorithm: alg,
    keyId: kid,
    signed: Buffer.from(`${head}.${body}`),
    signature: Buffer.from(signature, "base64url"),
  };
}

/** Base64url in its one spelling: what decodes otherwise as well would be two tokens with one meaning. */
function decoded(part: string): string {
  const bytes = Buffer.from(part, "base64url");
  if (bytes.toString("base64url") !== part) throw new SpiffeError("token", "the token is not encoded as base64url");
  return bytes.toString("utf8");
}

function objectOf(text: string, what: "token" | "bundle"): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    if (value && typeof value === "object" && !Array.isArray(value)) return value as Record<string, unknown>;
  } catch {
    // Said below.
  }
  throw new SpiffeError(what, `the ${what} is not a JSON object`);
}
