/** A client of the SPIFFE Workload API. */
export { WorkloadApi, type Watcher, type X509Context } from "./api.js";
export { Der, extensionOf, splitDer } from "./der.js";
export { SpiffeError } from "./error.js";
export { parseEndpoint, parseId, parseTrustDomain, type IdParts } from "./id.js";
export { JwtBundle, parseJwtSvid, validateJwtSvid, type JwtSvid } from "./jwt.js";
export { JwtSource, ruleOf, X509Source, type Peer, type SourceOptions } from "./source.js";
export { reconnectDelay } from "./wait.js";
export { idOfNames, readKey, X509Bundle, X509Svid } from "./x509.js";
