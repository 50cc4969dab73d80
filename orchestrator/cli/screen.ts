/**
 * The lower part of a terminal that is drawn again in place.
 *
 * 1. Only on a terminal; elsewhere whoever would draw writes plain lines instead.
 * 2. A frame is written in one call, each line cleared behind its text: nothing flickers, and what was above stays.
 */
import { writeSync } from 'node:fs';

export class Screen {
  #height = 0;

  static isThere(stream: { isTTY?: boolean } = process.stderr): boolean {
    return (stream.isTTY ?? false) && process.env['TERM'] !== 'dumb';
  }

  get columns(): number {
    return process.stderr.columns ?? 80;
  }

  draw(lines: readonly string[]): void {
    // More than the terminal has rows could not be moved back over.
    const shown = lines.slice(0, Math.max(1, (process.stderr.rows ?? 24) - 1));
    writeSync(2, drawing(shown, this.#height));
    this.#height = shown.length;
  }
}

/** What draws these lines over the `height` lines of the last frame, and clears what is left of it. */
export function drawing(lines: readonly string[], height: number): string {
  const up = height === 0 ? '' : `\u001b[${height}A\r`;
  return `${up}${lines.map((line) => `${line}\u001b[K\n`).join('')}\u001b[J`;
}
