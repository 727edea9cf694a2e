// A package that is published names its dependency by version; in a checkout it is the folder beside. `node pack.mjs before|after`
import { readFileSync, writeFileSync } from "node:fs";

const file = new URL("package.json", import.meta.url);
const text = readFileSync(file, "utf8");
const { version } = JSON.parse(readFileSync(new URL("spiffe/package.json", import.meta.url), "utf8"));
const forms = ['"@mayfly/spiffe": "file:spiffe"', `"@mayfly/spiffe": "^${version}"`];
const [from, to] = process.argv[2] === "before" ? forms : forms.reverse();
if (!text.includes(from)) throw new Error(`package.json does not say ${from}`);
writeFileSync(file, text.replace(from, to));
