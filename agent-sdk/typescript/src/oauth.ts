/** The token endpoint: an access token for an agent that proves itself by a JWT-SVID (RFC 6749 4.4, RFC 7523 2.2). */
import { request } from "node:https";
import { Denied, EXPIRED, Expired, FINAL, MayflyError, Revoked, Unavailable, Unusable } from "./errors.js";
import { isPeer } from "./issuer.js";
import { PATIENCE } from "./pace.js";

/** Longest answer, in bytes. */
const LONGEST = 64 * 1024;
const ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";

/** The token endpoint of an issuer by its URL, or the same at its own address, `host:port`. Throws `Unusable`. */
export function endpoint(issuer: string, address?: string): URL {
  const url = URL.canParse(issuer) ? new URL(issuer) : undefined;
  if (!url || url.protocol !== "https:" || url.search || url.hash || url.username) {
    throw new Unusable("answer", "the token names no issuer by an https URL: the issuer has no token endpoint");
  }
  return new URL(`https://${address ?? url.host}${url.pathname.replace(/\/$/, "")}/oauth/token`);
}

/**
 * Obtains an access token. Returns it with its expiry in unix seconds. The server must have the SPIFFE ID `pinned.id` below the roots
 * beside it (PEM), or else is verified by the roots of the system. Rejects with `Denied`, `Unavailable`, `Unusable` or `Revoked`.
 */
export async function ask(
  url: URL,
  assertion: string,
  audience: string,
  scopes: readonly string[],
  pinned?: { roots: string; id: string },
  patience = PATIENCE,
): Promise<{ text: string; expiresAt: number }> {
  const form = new URLSearchParams({
    grant_type: "client_credentials",
    client_assertion_type: ASSERTION,
    client_assertion: assertion,
    audience,
    scope: scopes.join(" "),
  });
  const began = Date.now() / 1000;
  const { status, retry, body } = await post(url, form.toString(), pinned, patience);
  let answer: Record<string, unknown> = {};
  try {
    answer = Object(JSON.parse(body)) as Record<string, unknown>;
  } catch {
    // Then it says nothing.
  }
  if (status !== 200) throw refused(status, String(answer["error"] ?? status), String(answer["error_description"] ?? ""), retry);
  const { access_token: text, token_type: kind, expires_in: life } = answer;
  if (typeof text !== "string" || !text || String(kind).toLowerCase() !== "bearer" || typeof life !== "number") {
    throw new Unusable("answer", "the answer of the token endpoint has no bearer token");
  }
  return { text, expiresAt: began + life };
}

interface Answer {
  status: number;
  retry: string | undefined;
  body: string;
}

function post(url: URL, body: string, pinned: { roots: string; id: string } | undefined, patience: number): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const fail = (e: Error & { code?: string }): void => {
      const untrusted = e instanceof MayflyError || /CERT|SIGNATURE|ISSUER|ALTNAME/.test(e.code ?? "");
      if (untrusted) {
        const why = `\`${url.host}\` is not the issuer: ${e.message}; set MAYFLY_SERVER=host:port to ask it at its own address`;
        reject(new Unusable("untrusted", why));
      } else reject(new Unavailable("unavailable", `the token endpoint at \`${url.host}\` does not answer: ${e.message}`.slice(0, 300)));
    };
    const tls = pinned && { ca: pinned.roots, checkServerIdentity: (_: string, c: { subjectaltname?: string }) => isPeer(c.subjectaltname, (id) => id === pinned.id) };
    const headers = { "content-type": "application/x-www-form-urlencoded", "content-length": Buffer.byteLength(body) };
    const signal = AbortSignal.timeout(patience * 1000);
    const sent = request(url, { method: "POST", headers, agent: false, signal, rejectUnauthorized: true, ...tls }, (response) => {
      let said = "";
      response.setEncoding("utf8");
      response.on("data", (part: string) => {
        said += part;
        if (said.length > LONGEST) response.destroy(new Error("its answer is too long"));
      });
      response.on("error", fail);
      response.on("end", () => resolve({ status: response.statusCode ?? 0, retry: response.headers["retry-after"], body: said }));
    });
    sent.on("error", fail);
    sent.end(body);
  });
}

/** What a refusal means. Its description begins with a reason code, where the issuer has one. */
export function refused(status: number, error: string, description: string, retry: string | undefined): MayflyError {
  const found = /^([A-Z][A-Z0-9_]*): (.*)$/.exec(description);
  const code = found?.[1] ?? error;
  const hint = found?.[2] ?? (description || "the token endpoint refuses this");
  const retryAfter = retry !== undefined && /^[0-9]{1,6}$/.test(retry) ? Number(retry) : undefined;
  if (status === 429) return new Denied(code, hint, retryAfter ?? 1);
  if (status >= 500) return new Unavailable(found ? code : "unavailable", `the token endpoint cannot answer now: ${hint}`, retryAfter);
  // CREDENTIAL_EXPIRED speaks of the assertion, which a clock that is behind can make old before its time.
  if (status === 401 && FINAL.has(code) && code !== "CREDENTIAL_EXPIRED") return new (EXPIRED.has(code) ? Expired : Revoked)(code, hint);
  return new Denied(code, hint);
}
