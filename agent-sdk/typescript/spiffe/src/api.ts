/** The client of the Workload API. */
import { join } from "node:path";
import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { SpiffeError } from "./error.js";
import { parseEndpoint, parseId, parseTrustDomain } from "./id.js";
import { JwtBundle, parseJwtSvid, type JwtSvid } from "./jwt.js";
import { reconnectDelay, sleep } from "./wait.js";
import { X509Bundle, X509Svid } from "./x509.js";

/** What the workload is now: its SVIDs, the default one first, and the bundles of its trust domain and of those that it federates with. */
export interface X509Context {
  svids: readonly X509Svid[];
  bundles: ReadonlyMap<string, X509Bundle>;
}

/** Is told of what a stream brings. */
export interface Watcher<T> {
  /** Everything that there is now: what is missing is no longer the workload's. */
  update(value: T): void;
  /** The stream has failed, or brought something that cannot be read, which was discarded. It is opened again. */
  error?(e: SpiffeError): void;
}

type Message = Record<string, any>;
type Stream = "FetchX509SVID" | "FetchX509Bundles" | "FetchJWTBundles";

const folder = join(__dirname, "..", "proto");
let loaded: grpc.ServiceClientConstructor | undefined;
/** The client of the proto that the package ships. It is read at the first use, so that an import costs less. */
const client = (): grpc.ServiceClientConstructor =>
  (loaded ??= grpc.loadPackageDefinition(
    loadSync("workloadapi.proto", { includeDirs: [folder], keepCase: true, longs: String, enums: String, bytes: Buffer, oneofs: true }),
  )["SpiffeWorkloadAPI"] as grpc.ServiceClientConstructor);
const OPTIONS = { "grpc.enable_http_proxy": 0, "grpc.use_local_subchannel_pool": 1, "grpc.default_authority": "localhost" };
/** A stream that stayed open for this many seconds and brought something did not fail. */
const STOOD = 1;

/** A connection to a Workload API. It is made at the first call, and again whenever it was lost. */
export class WorkloadApi {
  readonly #client: any;
  readonly #timeout: number;
  readonly #closed = new AbortController();

  /**
   * `endpoint`: `unix:///path` or `tcp://IP:port`, by default `SPIFFE_ENDPOINT_SOCKET`. `timeout`: seconds for one call; 10, if left out.
   * Throws `SpiffeError`.
   */
  constructor(endpoint = process.env["SPIFFE_ENDPOINT_SOCKET"] ?? "", { timeout = 10 }: { timeout?: number } = {}) {
    if (!endpoint) throw new SpiffeError("endpoint", "say where the Workload API is: SPIFFE_ENDPOINT_SOCKET is not set");
    this.#client = new (client())(parseEndpoint(endpoint), grpc.credentials.createInsecure(), OPTIONS);
    this.#timeout = timeout;
  }

  /** The X.509-SVIDs and bundles of now. Rejects with `SpiffeError`. */
  fetchX509Context(): Promise<X509Context> {
    return this.#first("FetchX509SVID", x509ContextOf);
  }

  /** The X.509 bundles of now, by trust domain. Rejects with `SpiffeError`. */
  fetchX509Bundles(): Promise<ReadonlyMap<string, X509Bundle>> {
    return this.#first("FetchX509Bundles", x509BundlesOf);
  }

  /** The JWT bundles of now, by trust domain. Rejects with `SpiffeError`. */
  fetchJwtBundles(): Promise<ReadonlyMap<string, JwtBundle>> {
    return this.#first("FetchJWTBundles", jwtBundlesOf);
  }

  /**
   * Follows the X.509-SVIDs and bundles, over every rotation and failure, until the signal is aborted or this is closed. Rejects if the
   * server refuses the question itself.
   */
  watchX509Context(watcher: Watcher<X509Context>, signal?: AbortSignal): Promise<void> {
    return this.#watch("FetchX509SVID", x509ContextOf, watcher, signal);
  }

  /** Follows the X.509 bundles, as `watchX509Context`. */
  watchX509Bundles(watcher: Watcher<ReadonlyMap<string, X509Bundle>>, signal?: AbortSignal): Promise<void> {
    return this.#watch("FetchX509Bundles", x509BundlesOf, watcher, signal);
  }

  /** Follows the JWT bundles, as `watchX509Context`. */
  watchJwtBundles(watcher: Watcher<ReadonlyMap<string, JwtBundle>>, signal?: AbortSignal): Promise<void> {
    return this.#watch("FetchJWTBundles", jwtBundlesOf, watcher, signal);
  }

  /** A JWT-SVID for these audiences: that of `spiffeId`, or else the default one. Rejects with `SpiffeError`. */
  async fetchJwtSvid(audience: string | readonly string[], { spiffeId = "" }: { spiffeId?: string } = {}): Promise<JwtSvid> {
    const [first] = await this.fetchJwtSvids(audience, { spiffeId });
    if (!first || (spiffeId && first.spiffeId !== spiffeId)) throw answer("has no token of the identity that was asked for");
    return first;
  }

  /** A JWT-SVID of each identity of the workload, the default one first. Rejects with `SpiffeError`. */
  async fetchJwtSvids(audience: string | readonly string[], { spiffeId = "" }: { spiffeId?: string } = {}): Promise<readonly JwtSvid[]> {
    const audiences = typeof audience === "string" ? [audience] : [...audience];
    if (audiences.length === 0 || audiences.includes("")) throw new SpiffeError("token", "say which audience the token is for");
    if (spiffeId) parseId(spiffeId);
    const { svids } = await this.#call("FetchJWTSVID", { audience: audiences, spiffe_id: spiffeId });
    if (!Array.isArray(svids) || svids.length === 0) throw answer("has no token");
    return svids.map((one: Message) => {
      const svid = parseJwtSvid(String(one["svid"]), audiences, String(one["hint"] ?? ""));
      if (svid.spiffeId !== one["spiffe_id"]) throw answer("has a token of another identity than it says");
      return svid;
    });
  }

  /** Has the Workload API verify a JWT-SVID for an audience. Resolves to its subject and claims; rejects with `SpiffeError`. */
  async validateJwtSvid(token: string, audience: string): Promise<{ spiffeId: string; claims: Record<string, unknown> }> {
    const { spiffe_id: spiffeId, claims } = await this.#call("ValidateJWTSVID", { svid: token, audience });
    parseId(String(spiffeId));
    return { spiffeId, claims: plain({ structValue: claims ?? {} }) as Record<string, unknown> };
  }

  /** Ends every stream and call. */
  close(): void {
    this.#closed.abort();
    this.#client.close();
  }

  #call(method: "FetchJWTSVID" | "ValidateJWTSVID", question: Message): Promise<Message> {
    return new Promise((resolve, reject) => {
      this.#open();
      const deadline = Date.now() + this.#timeout * 1000;
      const call = this.#client[method](question, header(), { deadline }, (e: grpc.ServiceError | null, got: Message) => {
        end();
        if (e) reject(failed(e));
        else resolve(got);
      });
      const end = this.#ends(call, reject);
    });
  }

  #first<T>(method: Stream, read: (message: Message) => T): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#open();
      const stream = this.#client[method]({}, header(), { deadline: Date.now() + this.#timeout * 1000 });
      const end = this.#ends(stream, reject);
      stream.once("data", (message: Message) => {
        try {
          resolve(read(message));
        } catch (e) {
          reject(e);
        }
        end();
        stream.cancel();
      });
      stream.on("error", (e: grpc.ServiceError) => (end(), reject(failed(e))));
      stream.on("end", () => (end(), reject(new SpiffeError("unavailable", "the Workload API ended the stream without an answer"))));
    });
  }

  async #watch<T>(method: Stream, read: (message: Message) => T, watcher: Watcher<T>, given?: AbortSignal): Promise<void> {
    const signal = given ? AbortSignal.any([given, this.#closed.signal]) : this.#closed.signal;
    for (let failures = 0; !signal.aborted; failures++) {
      const opened = Date.now();
      const { heard, why } = await this.#listen(method, read, watcher, signal);
      if (signal.aborted) return;
      if (why) watcher.error?.(why);
      if (why?.code === "refused") throw why;
      if (heard && Date.now() - opened >= STOOD * 1000) failures = 0;
      if (!heard || failures > 0) await sleep(reconnectDelay(failures), signal);
    }
  }

  #listen<T>(
    method: Stream,
    read: (message: Message) => T,
    watcher: Watcher<T>,
    signal: AbortSignal,
  ): Promise<{ heard: boolean; why: SpiffeError | undefined }> {
    return new Promise((resolve) => {
      let heard = false;
      const stream = this.#client[method]({}, header());
      const stop = (): void => stream.cancel();
      signal.addEventListener("abort", stop);
      const end = (why: SpiffeError | undefined): void => {
        signal.removeEventListener("abort", stop);
        resolve({ heard, why });
      };
      stream.on("data", (message: Message) => {
        let value: T;
        try {
          value = read(message);
        } catch (e) {
          // A message that lacks something is discarded as a whole.
          return watcher.error?.(e as SpiffeError);
        }
        heard = true;
        try {
          watcher.update(value);
        } catch (e) {
          // An exception in a handler of events would end the process.
          const { message } = e as Error;
          watcher.error?.(e instanceof SpiffeError ? e : new SpiffeError("update", `an update was not taken: ${message}`, undefined, e));
        }
      });
      stream.on("error", (e: grpc.ServiceError) => end(failed(e)));
      stream.on("end", () => end(undefined));
    });
  }

  /** Ends a call when the connection is closed, with that as the reason; the result stops that. */
  #ends(call: { cancel(): void }, reject: (e: SpiffeError) => void): () => void {
    const stop = (): void => {
      reject(closed());
      call.cancel();
    };
    this.#closed.signal.addEventListener("abort", stop, { once: true });
    return () => this.#closed.signal.removeEventListener("abort", stop);
  }

  #open(): void {
    if (this.#closed.signal.aborted) throw closed();
  }
}

// SPIFFE Workload Endpoint 3: a server that does not see it refuses.
function header(): grpc.Metadata {
  const metadata = new grpc.Metadata();
  metadata.set("workload.spiffe.io", "true");
  return metadata;
}

function failed(e: grpc.ServiceError): SpiffeError {
  const { code, details } = e;
  const refused = code === grpc.status.INVALID_ARGUMENT || code === grpc.status.UNIMPLEMENTED;
  const label = code === grpc.status.PERMISSION_DENIED ? "denied" : refused ? "refused" : "unavailable";
  return new SpiffeError(label, details || (grpc.status[code] ?? "the Workload API does not answer"), code, e);
}

const closed = (): SpiffeError => new SpiffeError("closed", "the connection to the Workload API was closed");
const answer = (what: string): SpiffeError => new SpiffeError("answer", `the Workload API's answer ${what}`);

/** X.509 of all identities. Throws `SpiffeError` if something mandatory is missing. */
function x509ContextOf(message: Message): X509Context {
  const bundles = new Map<string, X509Bundle>();
  for (const [name, bytes] of Object.entries<Uint8Array>(message["federated_bundles"] ?? {})) {
    const trustDomain = parseTrustDomain(name);
    bundles.set(trustDomain, X509Bundle.parse(trustDomain, bytes));
  }
  const hints = new Set<string>();
  const svids: X509Svid[] = [];
  for (const { spiffe_id, x509_svid, x509_svid_key, bundle, hint = "" } of message["svids"] ?? []) {
    if (!spiffe_id || !x509_svid?.length || !x509_svid_key?.length || !bundle?.length) throw answer("lacks a mandatory field");
    // Workload API 5.2.1: of several with one hint, the first counts.
    if (hint && hints.has(hint)) continue;
    hints.add(hint);
    const svid = X509Svid.parse(x509_svid, x509_svid_key, hint);
    if (svid.spiffeId !== spiffe_id) throw answer("has a certificate with another SPIFFE ID than it says");
    svids.push(svid);
    bundles.set(svid.trustDomain, X509Bundle.parse(svid.trustDomain, bundle));
  }
  if (svids.length === 0) throw answer("has no X.509-SVID");
  return { svids, bundles };
}

function byDomain<T>(bundles: Record<string, Uint8Array> | undefined, parse: (trustDomain: string, bytes: Uint8Array) => T): Map<string, T> {
  const found = Object.entries(bundles ?? {}).map(([name, bytes]) => [parseTrustDomain(name), bytes] as const);
  if (found.length === 0) throw answer("has no bundle");
  return new Map(found.map(([trustDomain, bytes]) => [trustDomain, parse(trustDomain, bytes)]));
}

const x509BundlesOf = (message: Message) => byDomain(message["bundles"], X509Bundle.parse);
const jwtBundlesOf = (message: Message) => byDomain(message["bundles"], JwtBundle.parse);

/** A `google.protobuf.Value` as JSON has it. */
function plain(value: Message): unknown {
  if (value["structValue"]) {
    const fields = Object.entries<Message>(value["structValue"].fields ?? {});
    return Object.fromEntries(fields.map(([name, field]) => [name, plain(field)]));
  }
  if (value["listValue"]) return (value["listValue"].values ?? []).map(plain);
  return value["stringValue"] ?? value["numberValue"] ?? value["boolValue"] ?? null;
}
