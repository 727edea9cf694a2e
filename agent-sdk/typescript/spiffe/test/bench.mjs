// What the verification of a JWT-SVID costs here and with jose: npm install --no-save jose && node bench.mjs
import { generateKeyPairSync, sign } from "node:crypto";
import { JwtBundle, validateJwtSvid } from "../dist/index.js";

const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
const jwk = publicKey.export({ format: "jwk" });
const bundles = new Map([["td.example", JwtBundle.parse("td.example", JSON.stringify({ keys: [{ ...jwk, kid: "1" }] }))]]);
const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
const text = `${encode({ alg: "ES256", kid: "1" })}.${encode({ sub: "spiffe://td.example/x", aud: "a", exp: Date.now() / 1000 + 3600 })}`;
const token = `${text}.${sign("sha256", Buffer.from(text), { key: privateKey, dsaEncoding: "ieee-p1363" }).toString("base64url")}`;
const { importJWK, jwtVerify } = await import("jose");
const key = await importJWK(jwk, "ES256");
const ways = {
  "node:crypto": () => validateJwtSvid(token, bundles, ["a"]),
  jose: () => jwtVerify(token, key, { audience: "a" }),
};
for (let round = 0; round < 5; round++) {
  for (const [name, verify] of Object.entries(ways)) {
    const from = process.hrtime.bigint();
    for (let n = 0; n < 3000; n++) await verify();
    console.log(name, Math.round(Number(process.hrtime.bigint() - from) / 3000 / 1000), "us");
  }
}
