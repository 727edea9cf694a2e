// What `@mayfly/spiffe` makes of the vectors that go-spiffe has judged: node judge.mjs VECTORS
import { readFileSync } from "node:fs";
import { JwtBundle, parseId, SpiffeError, validateJwtSvid, X509Svid } from "@mayfly/spiffe";

const { ids, x509, jwt, bundles } = JSON.parse(readFileSync(process.argv[2], "utf8"));
const keys = new Map(Object.entries(bundles).map(([name, jwks]) => [name, JwtBundle.parse(name, JSON.stringify(jwks))]));
const bytes = (text) => Buffer.from(text ?? "", "base64");
const judges = {
  ids: [ids, ({ Text }) => (parseId(Text), Text)],
  x509: [x509, ({ Certificates, Key }) => X509Svid.parse(bytes(Certificates), bytes(Key)).spiffeId],
  jwt: [jwt, ({ Text }) => validateJwtSvid(Text, keys, ["https://search.example"]).spiffeId],
};
// Where we alone refuse: RFC 7515 7.1 has no line break behind the compact form.
const stricter = new Set(["jwt: a line behind it"]);
let wrong = 0;
for (const [what, [vectors, judge]] of Object.entries(judges)) {
  let good = 0;
  for (const vector of vectors) {
    let id = "";
    let why;
    try {
      id = judge(vector);
    } catch (e) {
      if (!(e instanceof SpiffeError)) throw e;
      why = e.message;
    }
    if (id) good++;
    if (id === vector.ID) continue;
    if (id === "" && stricter.delete(`${what}: ${vector.Name}`)) continue;
    wrong++;
    console.error(`${what}: ${JSON.stringify(vector.Name)}: go-spiffe says ${vector.ID || "no"}, we say ${id || why}`);
  }
  console.log(`-- ${what}: ${good} accepted and ${vectors.length - good} refused, as by go-spiffe`);
}
for (const name of stricter) console.error(`no difference any more: ${name}`);
process.exit(wrong || stricter.size ? 1 : 0);
