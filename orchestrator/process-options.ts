/**
 * What the long-running processes share: flags with environment fallbacks, the ready line, and an orderly end.
 *
 * 1. Flag > environment (`COLLIMATE_<FLAG>`, for --temporal `COLLIMATE_TEMPORAL_ADDRESS`) > default; a missing or unknown
 *    flag is a usage error (exit code 2).
 * 2. Standard output carries one line, the ready line; everything else is logged to standard error.
 */
import { parseArgs } from 'node:util';

export const EXIT_USAGE = 2;

export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** A default of null makes the flag required. */
export function parseOptions<Name extends string>(
  defaults: Record<Name, string | null>,
  argv: string[],
): Record<Name, string> {
  const names = Object.keys(defaults) as Name[];
  let values: Record<string, unknown>;
  try {
    const options = Object.fromEntries(names.map((name) => [name, { type: 'string' as const }]));
    values = parseArgs({ args: argv, options, strict: true }).values;
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
  const resolved = names.map((name) => {
    const environmentName = environmentNameOf(name);
    const value = values[name] ?? process.env[environmentName] ?? defaults[name];
    if (typeof value !== 'string') throw new UsageError(`expected --${name} (or ${environmentName}), got nothing`);
    return [name, value] as const;
  });
  return Object.fromEntries(resolved) as Record<Name, string>;
}

/** COLLIMATE_TEMPORAL names the server's program, so the flag's fallback needs another name. */
function environmentNameOf(flag: string): string {
  return flag === 'temporal' ? 'COLLIMATE_TEMPORAL_ADDRESS' : `COLLIMATE_${flag.toUpperCase().replaceAll('-', '_')}`;
}

/** Splits `host:port`. */
export function hostAndPort(address: string): { host: string; port: number } {
  const match = /^(.+):(\d{1,5})$/.exec(address);
  if (match?.[1] === undefined || Number(match[2]) > 65535) {
    throw new UsageError(`expected host:port, got "${address}"`);
  }
  return { host: match[1], port: Number(match[2]) };
}

export function announceReady(fields: Record<string, string>): void {
  process.stdout.write(`${JSON.stringify({ ready: true, ...fields })}\n`);
}

/** Runs `main`; usage errors exit with 2, others with 1, each as one line on standard error. */
export function runProcess(main: () => Promise<void>): void {
  main().catch((error: unknown) => {
    const message = error instanceof Error ? error.message : String(error);
    process.stderr.write(`${message}\n`);
    process.exit(error instanceof UsageError ? EXIT_USAGE : 1);
  });
}

/** Calls `close` once at SIGTERM or SIGINT, then exits; exits anyway after `graceMs`. */
export function closeOnSignal(close: () => Promise<void>, graceMs: number): void {
  let closing = false;
  const begin = (): void => {
    if (closing) return;
    closing = true;
    setTimeout(() => process.exit(1), graceMs).unref();
    close().then(
      () => process.exit(0),
      () => process.exit(1),
    );
  };
  process.on('SIGTERM', begin);
  process.on('SIGINT', begin);
}
