/**
 * Notices that this process was held up: stopped, frozen with its machine, starved.
 *
 * 1. What it held is given up by then: its activities are repeated elsewhere, its workers may have joined another controller.
 *    Going on would only disturb those; since it holds nothing that it cannot rebuild, it ends, and is started again by
 *    whatever keeps it up.
 * 2. Timers come before anything that was received meanwhile, so that nothing late is acted on.
 */
const CHECK_MS = 500;

export function onHeldUp(maxMs: number, act: (heldUpMs: number) => void): void {
  let lastMs = performance.now();
  setInterval(() => {
    const heldUpMs = performance.now() - lastMs - CHECK_MS;
    lastMs = performance.now();
    if (heldUpMs > maxMs) act(heldUpMs);
  }, CHECK_MS).unref();
}
