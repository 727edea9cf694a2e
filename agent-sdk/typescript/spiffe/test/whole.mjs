// A program under a Workload API: both kinds of SVID, three rotations if it is given time, and the end. Not a test of its own.
import assert from "node:assert/strict";
import { JwtSource, WorkloadApi } from "../dist/index.js";

const audience = "https://search.example";
const rotations = Number(process.env.ROTATIONS ?? 3);
const api = new WorkloadApi();
const jwt = await JwtSource.open({ api });
const done = new AbortController();
// The end is read from the stream; the SIGTERM that comes with it is not what ends this program.
process.on("SIGTERM", () => undefined);
let seen = 0;
let id;
await api.watchX509Context(
  {
    update: async ({ svids: [svid], bundles }) => {
      id ??= svid.spiffeId;
      assert.equal(svid.spiffeId, id);
      assert.ok(bundles.get(svid.trustDomain).authorities.length > 0);
      if (++seen !== rotations + 1) return;
      const token = await jwt.fetch(audience);
      assert.equal(jwt.validate(token.token, audience).spiffeId, id);
      assert.equal((await api.validateJwtSvid(token.token, audience)).spiffeId, id);
      assert.ok((await api.fetchX509Bundles()).size > 0 && (await api.fetchJwtBundles()).size > 0);
      console.log(`${id} rotated`);
      if (process.env.ONCE) done.abort();
    },
    error: (e) => {
      if (seen <= rotations) throw e;
      console.log(`over: ${e.code}`);
      done.abort();
    },
  },
  done.signal,
);
api.close();
