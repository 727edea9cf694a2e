// Builds a package where npm installs it from its sources. For a folder outside of the program's own, npm makes a link and installs nothing
// for it; then what the build needs is installed here. `node prepare.mjs [FOLDER]`
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const folder = resolve(process.argv[2] ?? dirname(fileURLToPath(import.meta.url)));
const run = (...args) => execFileSync(process.execPath, args, { cwd: folder, stdio: ["ignore", process.stderr, process.stderr] });

const find = (name) => {
  try {
    return createRequire(join(folder, "package.json")).resolve(name);
  } catch {
    return undefined;
  }
};

const builtAt = (name) => statSync(join(folder, name), { throwIfNoEntry: false })?.mtimeMs ?? 0;
// npm prepares several packages at the same time, and one of them may have built another: what is newer than its sources stays.
const fresh = () => {
  const sources = readdirSync(join(folder, "src"), { recursive: true }).map((name) => join("src", name));
  return builtAt("dist/.built") > Math.max(...[...sources, "tsconfig.json", "package.json"].map(builtAt));
};

const npm = process.env.npm_execpath;
if (npm && ["typescript", "@grpc/grpc-js", "@types/node/package.json"].some((name) => !find(name))) {
  run(npm, "install", "--ignore-scripts", "--include=dev", "--no-package-lock", "--no-audit", "--no-fund", "--no-global", "--no-save");
}
if (!fresh()) {
  const made = `dist.${process.pid}`;
  try {
    run(join(dirname(find("typescript")), "tsc.js"), "-p", ".", "--outDir", made);
    writeFileSync(join(folder, made, ".built"), "");
    if (!fresh()) {
      rmSync(join(folder, "dist"), { recursive: true, force: true });
      renameSync(join(folder, made), join(folder, "dist"));
    }
  } finally {
    if (existsSync(join(folder, made))) rmSync(join(folder, made), { recursive: true });
  }
}
