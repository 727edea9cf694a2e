/** When to renew and when to retry: the numbers of the contract that all packages share. Times are in seconds. */

/** Shortest pause before any retry. */
export const FIRST = 0.2;
/** Longest pause before the stream of bundles is opened again. */
export const LONGEST = 30;
/** How often the clock is read while waiting, because clocks can be set and machines sleep. */
export const LOOK = 20;
/** A stream that was useful and stayed open for this long did not fail. */
export const STOOD = 1;
/** Time limit for one call. */
export const PATIENCE = 10;
/** Attempts of a first call while nobody answers. */
export const TRIES = 4;

/** How long after its issuance a certificate of this life is renewed. */
export const renewal = (life: number, chance = Math.random()): number => life * (0.3 + 0.4 * chance);

/** How long after a failure a renewal is retried, when the certificate is valid for `left`. */
export const again = (left: number, chance = Math.random()): number =>
  Math.max(left * (0.2 + 0.6 * chance ** 0.7), FIRST * (0.5 + 0.5 * chance));

/** How long after a repeated failure the stream of bundles is opened again. */
export const back = (left: number, chance = Math.random()): number =>
  Math.max(Math.min(left / 2, LONGEST), FIRST) * (0.5 + 0.5 * chance);

/** A pause that doubles with each failure in a row, up to the longest. */
export const backoff = (first: number, longest: number, failures: number, chance = Math.random()): number =>
  Math.min(first * 2 ** Math.min(failures, 16), longest) * (0.5 + 0.5 * chance);

/** The pause between attempts of a call. */
export const calls = (failures: number, chance = Math.random()): number => backoff(FIRST, 1.25, failures, chance);
/** The pause before a stream is opened again. */
export { reconnectDelay as streams } from "@mayfly/spiffe";

/** Waits, without keeping the process alive; ends at once when the signal is aborted. Never rejects. */
export function sleep(seconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const done = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, Math.min(seconds * 1000, 2 ** 31 - 1));
    timer.unref();
    signal?.addEventListener("abort", done);
  });
}

/** Waits until a time of day in unix seconds. Returns whether the signal was aborted before. */
export async function until(at: number, signal: AbortSignal): Promise<boolean> {
  for (let left = at - Date.now() / 1000; left > 0 && !signal.aborted; left = at - Date.now() / 1000) {
    await sleep(Math.min(left, LOOK), signal);
  }
  return signal.aborted;
}
