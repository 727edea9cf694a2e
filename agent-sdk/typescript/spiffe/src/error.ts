/** What goes wrong. */

/** An ID, certificate, token, address or answer that is not valid, or an endpoint that does not answer. */
export class SpiffeError extends Error {
  override readonly name = "SpiffeError";

  constructor(
    /**
     * Stable label: `spiffe_id`, `endpoint`, `certificate`, `key`, `token`, `bundle`, `answer`, `peer`, `expired`, `closed`, `update` (a handler of the program threw); of a call to the
     * Workload API `denied` (PERMISSION_DENIED), `refused` (INVALID_ARGUMENT, UNIMPLEMENTED) and `unavailable`.
     */
    readonly code: string,
    message: string,
    /** The gRPC status code of a call that failed. */
    readonly status?: number,
    /** The error of gRPC, with its metadata. */
    cause?: unknown,
  ) {
    super(message, cause === undefined ? {} : { cause });
  }
}
