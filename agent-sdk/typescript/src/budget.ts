/** The budget of an agent: spending, reserving and looking, in the agent's own name. */
import { randomUUID } from "node:crypto";
import { Unusable } from "./errors.js";
import { insist, type Connection, type Message } from "./issuer.js";
import type { Keeper } from "./keeper.js";

/** What is counted: operations, tokens of a model, dollars. */
export type Unit = "ops" | "tokens" | "usd";

/** How much: whole operations and tokens; dollars with at most six digits behind the point, best as text: `"0.25"`. */
export type Amount = number | string;

/** What one agent of the line may spend of one unit, with everything below it. */
export interface BudgetLine {
  /** Whose account it is: the agent itself, or one above it. */
  agent: string;
  unit: Unit;
  /** `undefined`: it is counted and not limited. */
  limit: number | undefined;
  spent: number;
  reserved: number;
  left: number | undefined;
  /** The class that sets the limit, and who owns it. */
  agentClass: string;
  owner: string;
}

const UNITS: Record<Unit, string> = { ops: "BUDGET_UNIT_OPS", tokens: "BUDGET_UNIT_TOKENS", usd: "BUDGET_UNIT_MICRO_USD" };
const MICRO = 1e6;
const MOST = 2n ** 53n;

/** A part of the budgets that is held for an agent. What is not spent comes back by `release()`, by `await using`, or with time. */
export class Reservation {
  constructor(
    private readonly keeper: Keeper,
    private readonly agent: string,
    readonly unit: Unit,
    readonly id: string,
    /** When it comes back by itself. */
    readonly expiresAt: Date,
  ) {}

  /** Spends from what is held; resolves to what is left of it. Rejects with `Exhausted` if that is less than `amount`. */
  async spend(amount: Amount): Promise<number> {
    const got = await spent(this.keeper, this.agent, this.unit, amount, this.id);
    return shown(this.unit, got["reservation_left"]) ?? 0;
  }

  /** Gives back what was not spent. */
  async release(): Promise<void> {
    await ask(this.keeper, (connection) => connection.call("Release", { reservation: this.id }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Spent whole, or the agent has ended: nothing is held any more. Otherwise its time passes.
    await this.release().catch(() => undefined);
  }
}

/** Spends as an agent. */
export async function spend(keeper: Keeper, agent: string, unit: Unit, amount: Amount): Promise<number | undefined> {
  return shown(unit, (await spent(keeper, agent, unit, amount, "0"))["left"]);
}

/** Holds a part for an agent. */
export async function reserve(keeper: Keeper, agent: string, unit: Unit, amount: Amount, life: number): Promise<Reservation> {
  const life_seconds = life > 0 ? Math.max(Math.floor(life), 1) : 0;
  const wanted = { agent, unit: named(unit), amount: counted(unit, amount), life_seconds, request_id: randomUUID() };
  const got = await ask(keeper, (connection) => connection.call("Reserve", wanted));
  return new Reservation(keeper, agent, unit, got["reservation"], new Date(Number(got["expires_at"]?.seconds ?? 0) * 1000));
}

/** The agent's own accounts, then those above it. */
export async function look(keeper: Keeper, agent: string): Promise<BudgetLine[]> {
  const got = await ask(keeper, (connection) => connection.call("GetBudget", { agent }));
  const lines: BudgetLine[] = [];
  for (const line of got["lines"] ?? []) {
    const unit = (Object.keys(UNITS) as Unit[]).find((name) => UNITS[name] === line.unit);
    // A unit of a later version.
    if (!unit) continue;
    const [limit, left] = [shown(unit, line.limit), shown(unit, line.left)];
    const [used, reserved] = [shown(unit, line.spent) ?? 0, shown(unit, line.reserved) ?? 0];
    lines.push({ agent: line.agent_id, unit, limit, spent: used, reserved, left, agentClass: line.class, owner: line.owner });
  }
  return lines;
}

/** An amount as the issuer counts it, in its unit: dollars are counted in millionths. */
export function shown(unit: string, amount: string | null | undefined): number | undefined {
  if (amount === undefined || amount === null) return undefined;
  return unit === "usd" ? Number(amount) / MICRO : Number(amount);
}

function spent(keeper: Keeper, agent: string, unit: Unit, amount: Amount, reservation: string): Promise<Message> {
  // A lost answer is asked for again without spending twice.
  const wanted = { agent, unit: named(unit), amount: counted(unit, amount), reservation, request_id: randomUUID() };
  return ask(keeper, (connection) => connection.call("Spend", wanted));
}

const ask = (keeper: Keeper, call: (connection: Connection) => Promise<Message>): Promise<Message> =>
  insist(() => keeper.asked(call));

function named(unit: Unit): string {
  const name = Object.hasOwn(UNITS, unit) ? UNITS[unit] : undefined;
  if (!name) throw new Unusable("unit", `\`${unit}\` is no unit of a budget: write one of ${Object.keys(UNITS).join(", ")}`);
  return name;
}

/** The amount as the issuer counts it. Nothing is rounded. */
function counted(unit: Unit, amount: Amount): string {
  const [, whole = "", rest = ""] = /^(\d{1,16})(?:\.(\d{1,6}))?$/.exec(String(amount)) ?? [];
  const exact = whole !== "" && (unit === "usd" || rest === "");
  const total = exact ? BigInt(whole) * (unit === "usd" ? BigInt(MICRO) : 1n) + BigInt(rest.padEnd(unit === "usd" ? 6 : 0, "0") || "0") : 0n;
  if (total < 1n || total > MOST) {
    const digits = unit === "usd" ? "dollars with at most six digits behind the point" : "a whole number";
    throw new Unusable("amount", `\`${amount}\` is no amount of ${unit}: give ${digits}, more than 0`);
  }
  return String(total);
}
