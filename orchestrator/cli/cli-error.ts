/**
 * Exit codes and the one error type that a command ends with.
 *
 * 1. Every message says what was expected, what came and what to do.
 * 2. The codes are part of the interface: scripts depend on them, `--help` lists them.
 */

export const EXIT = {
  ok: 0,
  runFailed: 1,
  badInput: 2,
  notFound: 3,
  cancelled: 4,
  timeout: 5,
  unreachable: 6,
} as const;
export type ExitName = keyof typeof EXIT;

export const EXIT_CODES_HELP = `
Exit codes:
  0  ok (also: a follow was left with Ctrl-C; the run goes on)
  1  the run failed; something that was verified differs
  2  usage or bad input: wrong option, run file, missing or empty file, port in use
  3  not found: no such run, user or published list; nothing left to verify
  4  the run was cancelled
  5  timeout: something did not answer in time
  6  server unreachable: nothing is up, or it does not listen`;

export class CliError extends Error {
  override readonly name = 'CliError';

  constructor(
    readonly exit: ExitName,
    message: string,
    options?: { cause?: unknown },
  ) {
    super(message, options);
  }

  get exitCode(): number {
    return EXIT[this.exit];
  }
}

/** Whether a server did not answer, now or in time: what it would have said may still be found elsewhere. */
export function isAway(error: unknown): boolean {
  return error instanceof CliError && (error.exit === 'unreachable' || error.exit === 'timeout');
}

/** The message of anything thrown, for a line on stderr. */
export function messageOf(error: unknown): string {
  if (error instanceof Error) return error.message;
  return typeof error === 'string' ? error : JSON.stringify(error);
}

/** True for a Node system error with one of these codes. */
export function hasCode(error: unknown, ...codes: string[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code));
}
