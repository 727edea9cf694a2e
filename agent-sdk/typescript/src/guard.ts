/** Verification of agents by `mayfly guard`, which runs beside the service and hears of every revocation at once. */
import { Agent, request as httpRequest, type IncomingMessage, type ServerResponse } from "node:http";
import type { User } from "./binding.js";
import { MayflyError, Unusable } from "./errors.js";

/** The agent that made a request. Its credential was valid, and not revoked, a moment ago. */
export interface Caller {
  agentId: string;
  user: User | undefined;
  chain: string[];
  scopes: string[];
  delegationId: string | undefined;
  mode: string;
  expiresAt: Date;
  /** Up to which revision every revocation is known. */
  revision: number;
  /** The `sub` of an access token; undefined for a JWT-SVID. */
  subject: string | undefined;
  /** What an access token is limited to (RFC 9396), each with its `type`: only for who asks with `actions`. */
  authorizationDetails: Record<string, unknown>[];
  /** The approval that it uses; undefined if it needs none. */
  approvalId: string | undefined;
}

/** A request is refused: `status` is 401, 403 or 503, `code` the reason, and `headers` are for the response. */
export class Refused extends MayflyError {
  constructor(
    readonly status: 401 | 403 | 503,
    code: string,
    hint: string,
    readonly scopes: readonly string[] = [],
    /** URL of the metadata of this service (RFC 9728), for the challenge. */
    readonly resourceMetadata?: string,
  ) {
    super(code, hint, status === 503 ? 1 : undefined);
  }

  get headers(): Record<string, string> {
    const headers: Record<string, string> = { "mayfly-reason": this.code, "cache-control": "no-store" };
    if (this.status === 503) headers["retry-after"] = "1";
    else if (this.code === "SCOPE_MISSING") {
      const plain = this.scopes.filter((scope) => /^[\x21\x23-\x5b\x5d-\x7e]+$/.test(scope)).join(" ");
      headers["www-authenticate"] = `Bearer error="insufficient_scope", scope="${plain}"`;
    } else if (this.code === "CREDENTIAL_MISSING") headers["www-authenticate"] = "Bearer";
    else if (this.status === 401) headers["www-authenticate"] = 'Bearer error="invalid_token"';
    const challenge = headers["www-authenticate"];
    if (challenge !== undefined && this.resourceMetadata !== undefined) {
      headers["www-authenticate"] = `${challenge}${challenge === "Bearer" ? "" : ","} resource_metadata="${this.resourceMetadata}"`;
    }
    return headers;
  }

  /** JSON for the response. A stranger learns no more than the code. */
  get body(): string {
    return JSON.stringify({ error: this.code });
  }
}

/** A resource of OAuth, as the issuer and the guard take it: origin and path. */
const RESOURCE = /^(https:\/\/[^/?#@"\\\s]+)((?:\/[^?#@"\\\s]*[^/?#@"\\\s])?)$/;
const FORBIDDEN = new Set(["SCOPE_MISSING", "CALLER_NOT_AN_AGENT", "CALLER_NOT_AUTHORIZED"]);

/** Asks a `mayfly guard`. */
export class Guard {
  readonly #where: { socketPath: string } | { host: string; port: number };
  readonly #agent = new Agent({ keepAlive: true, maxFreeSockets: 16 });
  readonly audience: string;
  /** Where the metadata is to be served; undefined without `issuer`. */
  readonly metadataPath: string | undefined;
  readonly #issuer: string | undefined;
  readonly #pointer: string | undefined;
  readonly #timeout: number;

  /**
   * `address`: `unix:/path` or `host:port` on loopback, by default `MAYFLY_GUARD`. `audience`: that of this service, by default
   * `MAYFLY_AUDIENCE`. `timeout`: seconds for one answer. `issuer`: URL of the issuer, if this service is a resource of OAuth, such as
   * an MCP server: its audience is then an https URL, and each challenge says where its metadata is. Throws `Unusable` if one is missing.
   */
  constructor({
    address = process.env["MAYFLY_GUARD"] ?? "",
    audience = process.env["MAYFLY_AUDIENCE"] ?? "",
    timeout = 2,
    issuer,
  }: { address?: string; audience?: string; timeout?: number; issuer?: string } = {}) {
    if (!audience) throw new Unusable("audience", "say which audience tokens must be for: audience, or MAYFLY_AUDIENCE");
    const tcp = /^(127\.0\.0\.1|localhost|\[::1\]):([0-9]{1,5})$/.exec(address);
    if (/^unix:\/./.test(address)) this.#where = { socketPath: address.slice(5) };
    else if (tcp) this.#where = { host: (tcp[1] ?? "").replace(/[[\]]/g, ""), port: Number(tcp[2]) };
    else throw new Unusable("guard", `\`${address.slice(0, 256)}\` is not a guard: write unix:/path or 127.0.0.1:port`);
    this.audience = audience;
    this.#timeout = timeout;
    this.#issuer = issuer;
    if (issuer !== undefined) {
      const [, origin, path] = RESOURCE.exec(audience) ?? [];
      const what = `\`${audience.slice(0, 256)}\` is no https URL without user, query, fragment and a slash at its end`;
      if (origin === undefined) throw new Unusable("audience", what);
      this.metadataPath = `/.well-known/oauth-protected-resource${path}`;
      this.#pointer = origin + this.metadataPath;
    }
  }

  /** The metadata of this service (RFC 9728), to serve to everybody at `metadataPath`: where to get tokens for it. */
  metadata(scopes: readonly string[] = []): Record<string, unknown> {
    const said = { resource: this.audience, authorization_servers: [this.#issuer], bearer_methods_supported: ["header"] };
    return scopes.length ? { ...said, scopes_supported: scopes } : said;
  }

  /**
   * Who presents this JWT-SVID or access token, if it is valid now, is not revoked, and has all of these scopes. With `actions` the
   * service reads `authorizationDetails`; without, a token that has some is refused. Rejects with `Refused`.
   */
  async check(credential: string, scopes: readonly string[] = [], { actions = false } = {}): Promise<Caller> {
    try {
      return await this.#check(credential, scopes, actions);
    } catch (e) {
      throw this.#pointed(e);
    }
  }

  /** The same refusal, with where the metadata is. */
  #pointed(e: unknown): unknown {
    if (!(e instanceof Refused) || this.#pointer === undefined) return e;
    return new Refused(e.status, e.code, e.hint, e.scopes, this.#pointer);
  }

  async #check(credential: string, scopes: readonly string[], actions: boolean): Promise<Caller> {
    const question = { credential, audience: this.audience, scopes, ...(actions ? { actions } : {}) };
    const { status, answer } = await this.#ask(JSON.stringify(question));
    if (status === 200 && answer["decision"] === true) return callerOf(answer, scopes);
    const { reason } = answer;
    if (status === 403 && answer["decision"] === false && typeof reason === "string") {
      const code = reason === "CREDENTIAL_STALE" ? 503 : FORBIDDEN.has(reason) ? 403 : 401;
      throw new Refused(code, reason, String(answer["hint"] ?? "the credential is refused"), scopes);
    }
    if (status === 400 || status === 413) throw new Refused(401, "CREDENTIAL_MALFORMED", "the credential cannot be read", scopes);
    throw away(`the guard answers with ${status}`);
  }

  /** The same for all `Authorization` headers of a request, of which there must be exactly one. */
  async checkHeader(authorization: readonly string[], scopes: readonly string[] = [], options: { actions?: boolean } = {}): Promise<Caller> {
    const [only] = authorization;
    if (only === undefined) throw this.#pointed(new Refused(401, "CREDENTIAL_MISSING", "show a bearer token", scopes));
    const token = /^bearer +([A-Za-z0-9._~+/=-]{1,16384})$/i.exec(only)?.[1];
    if (authorization.length > 1 || !token) {
      throw this.#pointed(new Refused(401, "TOKEN_MALFORMED", "there must be one authorization header, with a bearer token", scopes));
    }
    return this.check(token, scopes, options);
  }

  /** Express: `app.get("/mail", guard.express("mail:send"), …)`; the caller is `request.mayfly`. */
  express(...scopes: string[]) {
    return async (request: IncomingMessage & { mayfly?: Caller }, response: ServerResponse, next: (error?: unknown) => void) => {
      try {
        request.mayfly = await this.checkHeader(headers(request), scopes);
      } catch (e) {
        const refused = e instanceof Refused ? e : away("it cannot be asked");
        response.writeHead(refused.status, { ...refused.headers, "content-type": "application/json" }).end(refused.body);
        return;
      }
      next();
    };
  }

  /** Fastify: `app.get("/mail", { preHandler: guard.fastify("mail:send") }, …)`; the caller is `request.mayfly`. */
  fastify(...scopes: string[]) {
    return async (request: { raw: IncomingMessage }, reply: FastifyReply): Promise<FastifyReply | undefined> => {
      try {
        Object.assign(request, { mayfly: await this.checkHeader(headers(request.raw), scopes) });
        return undefined;
      } catch (e) {
        const refused = e instanceof Refused ? e : away("it cannot be asked");
        return reply.code(refused.status).headers({ ...refused.headers, "content-type": "application/json" }).send(refused.body);
      }
    };
  }

  /** A handler of `Request` and `Response`: `guard.handler(["mail:send"], (request, caller) => new Response(…))`. */
  handler(scopes: readonly string[], handle: (request: Request, caller: Caller) => Response | Promise<Response>) {
    return async (request: Request): Promise<Response> => {
      // Several headers arrive here joined by a comma, which no bearer token has.
      const value = request.headers.get("authorization");
      let caller: Caller;
      try {
        caller = await this.checkHeader(value === null ? [] : [value], scopes);
      } catch (e) {
        const refused = e instanceof Refused ? e : away("it cannot be asked");
        return new Response(refused.body, { status: refused.status, headers: { ...refused.headers, "content-type": "application/json" } });
      }
      return handle(request, caller);
    };
  }

  /** Closes the connections that are kept open. */
  close(): void {
    this.#agent.destroy();
  }

  async #ask(body: string): Promise<{ status: number; answer: Record<string, unknown> }> {
    try {
      return await this.#exchange(body, this.#agent);
    } catch (e) {
      // A connection that was kept may have been closed meanwhile: once more, over a new one.
      if ((e as { reused?: boolean }).reused) return this.#exchange(body, false).catch((again) => Promise.reject(away(again.message)));
      throw away((e as Error).message);
    }
  }

  #exchange(body: string, agent: Agent | false): Promise<{ status: number; answer: Record<string, unknown> }> {
    return new Promise((resolve, reject) => {
      const signal = AbortSignal.timeout(this.#timeout * 1000);
      const sent = httpRequest(
        { ...this.#where, path: "/verify", method: "POST", agent, signal, headers: { "content-type": "application/json" } },
        (response) => {
          const parts: Buffer[] = [];
          response.on("data", (part: Buffer) => parts.push(part));
          response.on("error", reject);
          response.on("end", () => {
            try {
              const answer = JSON.parse(Buffer.concat(parts).toString());
              resolve({ status: response.statusCode ?? 0, answer: answer && typeof answer === "object" ? answer : {} });
            } catch (e) {
              reject(e);
            }
          });
        },
      );
      sent.on("error", (e) => reject(Object.assign(e, { reused: sent.reusedSocket && !signal.aborted })));
      sent.end(body);
    });
  }
}

/** What is needed of a reply of Fastify. */
export interface FastifyReply {
  code(status: number): FastifyReply;
  headers(values: Record<string, string>): FastifyReply;
  send(body: string): FastifyReply;
}

/** All `Authorization` headers of a request; node keeps the first of several elsewhere. */
function headers(request: IncomingMessage): string[] {
  return request.rawHeaders.filter((_, at) => at % 2 === 1 && request.rawHeaders[at - 1]?.toLowerCase() === "authorization");
}

const away = (why: string): Refused =>
  new Refused(503, "GUARD_UNAVAILABLE", `it is not known whether the credential is valid: ${why}; check that the guard runs`);

/** Reads a positive answer strictly: what is not as it should be is no yes. */
function callerOf(answer: Record<string, unknown>, scopes: readonly string[]): Caller {
  const { agent_id, user, chain, scopes: had, delegation_id, mode, expires_at, revision } = answer as Record<string, any>;
  const { subject, authorization_details: details = [], approval_id } = answer as Record<string, any>;
  const absent = (value: unknown): boolean => value === null || value === undefined;
  if (agent_id === null || agent_id === undefined) throw new Refused(403, "CALLER_NOT_AN_AGENT", "only agents may call this", scopes);
  const text = (value: unknown): boolean => typeof value === "string" && value !== "";
  const texts = (value: unknown): boolean => Array.isArray(value) && value.every(text);
  const expiresAt = new Date(text(expires_at) ? expires_at : Number.NaN);
  const whole =
    text(agent_id) && (user === null || (text(user?.iss) && text(user?.sub))) && texts(chain) && texts(had) &&
    (delegation_id === null || text(delegation_id)) && text(mode) && !Number.isNaN(expiresAt.getTime()) && Number.isInteger(revision) &&
    (absent(subject) || text(subject)) && (absent(approval_id) || text(approval_id)) &&
    // What is no limit that somebody could read is no yes.
    Array.isArray(details) && details.every((detail) => detail !== null && typeof detail === "object" && text(detail.type));
  if (!whole) throw away("its answer cannot be read");
  const missing = scopes.find((scope) => !had.includes(scope));
  if (missing !== undefined) throw new Refused(403, "SCOPE_MISSING", `the agent lacks the scope \`${missing}\``, scopes);
  return {
    agentId: agent_id, user: user ?? undefined, chain, scopes: had, delegationId: delegation_id ?? undefined, mode, expiresAt, revision,
    subject: subject ?? undefined, authorizationDetails: details, approvalId: approval_id ?? undefined,
  };
}
