// Builds this package and the one that it is made of, where npm installs them from their sources.
import { execFileSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
for (const folder of [join(here, "spiffe"), here]) {
  execFileSync(process.execPath, [join(here, "spiffe/prepare.mjs"), folder], { stdio: "inherit" });
}
