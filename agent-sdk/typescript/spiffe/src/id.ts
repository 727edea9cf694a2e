/** SPIFFE IDs and the addresses of Workload APIs. */
import { SpiffeError } from "./error.js";

/** The two parts of a SPIFFE ID. */
export interface IdParts {
  trustDomain: string;
  /** Empty, or segments that each begin with `/`. */
  path: string;
}

/** Splits a SPIFFE ID. Throws `SpiffeError` unless it is one, in the one spelling that the standard allows, of at most 2,048 bytes. */
export function parseId(text: string): IdParts {
  const match = text.length <= 2048 ? /^spiffe:\/\/([a-z0-9._-]{1,255})((?:\/[A-Za-z0-9._-]+)*)$/.exec(text) : null;
  const path = match?.[2] ?? "";
  if (!match || path.split("/").some((part) => part === "." || part === "..")) {
    throw new SpiffeError("spiffe_id", `\`${text.slice(0, 256)}\` is not a SPIFFE ID: write spiffe://trust-domain/path`);
  }
  return { trustDomain: match[1] ?? "", path };
}

/** The trust domain of `spiffe://name` or `name`. Throws `SpiffeError`. */
export function parseTrustDomain(text: string): string {
  const { trustDomain, path } = parseId(text.startsWith("spiffe:") ? text : `spiffe://${text}`);
  if (path) throw new SpiffeError("spiffe_id", `\`${text.slice(0, 256)}\` is not a trust domain: it has a path`);
  return trustDomain;
}

/** Reads the address of a Workload API, `unix:///path` or `tcp://IP:port`, and returns it as grpc-js writes it. Throws `SpiffeError`. */
export function parseEndpoint(text: string): string {
  const tcp = /^tcp:\/\/((?:[0-9]{1,3}\.){3}[0-9]{1,3}|\[[0-9A-Fa-f:.]+\]):([1-9][0-9]{0,4})$/.exec(text);
  if (tcp && Number(tcp[2]) < 65536) return `${tcp[1]?.startsWith("[") ? "ipv6" : "ipv4"}:${tcp[1]}:${tcp[2]}`;
  const unix = /^unix:(?:\/\/)?(\/[^/%?#\0][^%?#\0]*[^/%?#\0]|\/[^/%?#\0])$/.exec(text);
  if (unix && !text.startsWith("unix:////")) return `unix:${unix[1]}`;
  throw new SpiffeError("endpoint", `\`${text.slice(0, 256)}\` is not the address of a Workload API: write unix:///path or tcp://IP:port`);
}
