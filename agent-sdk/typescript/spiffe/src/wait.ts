/** Pauses. */

/** Seconds before a stream is opened again after so many failures in a row: 0.05, doubled up to 5, of which chance takes up to half. */
export const reconnectDelay = (failures: number, chance = Math.random()): number =>
  Math.min(0.05 * 2 ** Math.min(failures, 16), 5) * (0.5 + 0.5 * chance);

/** Waits; ends at once when the signal is aborted. Never rejects. The process lives on meanwhile: what is followed comes back. */
export function sleep(seconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, seconds * 1000);
    signal.addEventListener("abort", done);
  });
}
