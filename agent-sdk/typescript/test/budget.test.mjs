// Budgets: an agent spends in its own name, never more than is left, and hears whose budget it was.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Exhausted, Revoked, Unusable } from "../dist/index.js";
import { start } from "./dev.mjs";

let dev;
before(async () => (dev = await start()));
after(() => dev.stop());

const leftOf = async (me, unit) => (await me.budget()).find((line) => line.unit === unit && line.agent === me.id).left;

test("what is spent is taken from the agent and from those above it", async () => {
  const me = await dev.spawn("researcher");
  const child = await me.spawn("worker");
  const before = await leftOf(me, "tokens");
  assert.equal(await child.spend("tokens", 500), await leftOf(child, "tokens"));
  assert.equal(await leftOf(me, "tokens"), before - 500);
  const lines = (await child.budget()).filter((line) => line.unit === "tokens");
  assert.deepEqual(lines.map(({ agent, spent }) => [agent, spent]), [[child.id, 500], [me.id, 500]]);
  assert.ok(lines.every((line) => line.owner && line.agentClass && line.reserved === 0));
  await me.end();
});

test("dollars are exact, and what is no amount is not sent", async () => {
  const me = await dev.spawn("researcher");
  const before = await leftOf(me, "usd");
  assert.equal(await me.spend("usd", "0.000001"), (before * 1e6 - 1) / 1e6);
  assert.equal(await me.spend("usd", 0.1), (before * 1e6 - 100_001) / 1e6);
  for (const amount of ["0", "-1", "0.0000001", "a", "", "1e99", Number.NaN, 0.1 + 0.2]) {
    await assert.rejects(me.spend("usd", amount), Unusable, String(amount));
  }
  await assert.rejects(me.spend("tokens", 0.5), Unusable);
  await assert.rejects(me.spend("token", 1), /ops, tokens, usd/);
  await assert.rejects(me.spend("constructor", 1), Unusable);
  await me.end();
});

test("what is reserved comes back unless it is spent", async () => {
  const me = await dev.spawn("worker");
  const before = await leftOf(me, "ops");
  const held = await me.reserve("ops", 100, { life: 60 });
  assert.ok(held.expiresAt > new Date());
  assert.equal(await leftOf(me, "ops"), before - 100);
  assert.equal(await held.spend(30), 70);
  await assert.rejects(held.spend(71), (e) => e instanceof Exhausted && e.left === 70 && e.unit === "ops");
  await held.release();
  assert.equal(await leftOf(me, "ops"), before - 30);
  await me.end();
});

test("no unit is spent twice by many calls at once, and the refusal says whose budget it was", async () => {
  const me = await dev.spawn("thrifty");
  const many = await Promise.allSettled(Array.from({ length: 15 }, () => me.spend("ops", 1)));
  assert.equal(many.filter(({ status }) => status === "fulfilled").length, 10);
  await assert.rejects(me.spend("ops", 1), (e) => {
    assert.ok(e instanceof Exhausted && !e.transient);
    assert.deepEqual([e.code, e.unit, e.left, e.agent, e.agentClass, e.owner], ["BUDGET_EXHAUSTED", "ops", 0, me.id, "thrifty", "finance"]);
    return true;
  });
  await me.end();
});

test("a sub-agent without a key spends from its own budget through its parent", async () => {
  const me = await dev.spawn("researcher");
  const child = await me.spawn("worker", { keyless: true });
  const before = await leftOf(me, "ops");
  await child.spend("ops", 2);
  const held = await child.reserve("ops", 5);
  assert.equal(await held.spend(1), 4);
  await held.release();
  assert.deepEqual((await child.budget()).filter((line) => line.unit === "ops").map((line) => line.spent), [3, 3]);
  assert.equal(await leftOf(me, "ops"), before - 3);
  await dev.revoke(child.id);
  await assert.rejects(child.spend("ops", 1), Revoked);
  await me.spend("ops", 1);
  await me.end();
});
