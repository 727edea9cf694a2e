// jose: finds the keys by the issuer's URL, verifies a token, prints its subject.
import { readFileSync } from "node:fs";
import { createRemoteJWKSet, jwtVerify } from "jose";

const [issuer, audience, file] = process.argv.slice(2);
const found = await (await fetch(`${issuer}/.well-known/openid-configuration`)).json();
const keys = createRemoteJWKSet(new URL(found.jwks_uri));
const { payload } = await jwtVerify(readFileSync(file, "utf8").trim(), keys, { issuer, audience });
console.log(payload.sub);
