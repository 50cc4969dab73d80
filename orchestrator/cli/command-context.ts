/** What every command starts from: global options, the home, and a session with the servers that are up. */
import { type Command } from 'commander';

import {
  type ArtifactStore,
  CorruptArtifactError,
  openStore,
  StoreAddressError,
  StoreUnavailableError,
} from '../artifacts/store.js';
import { CliError } from './cli-error.js';
import { type Home, homeAt, type ProcessTable } from './home.js';
import { requireUp } from './installation.js';
import { type OutputFormat, progress } from './output.js';
import { NAMESPACE } from './supervisor-config.js';
import { type TemporalSession } from './temporal-connection.js';

export interface CommandContext {
  home: Home;
  output: OutputFormat;
}

export function contextOf(command: Command): CommandContext {
  const options = command.optsWithGlobals<{ home?: string; output: OutputFormat }>();
  return { home: homeAt(options.home), output: options.output };
}

/** Runs `action` with a connection to the Temporal server that is up, and closes it whatever happens. */
export async function withSession<T>(
  home: Home,
  action: (session: TemporalSession, table: ProcessTable) => Promise<T>,
): Promise<T> {
  const table = requireUp(home);
  // Loaded late: Temporal's client takes longer to load than most commands take to find that nothing is up.
  const { connectTemporal } = await import('./temporal-connection.js');
  const session = await connectTemporal(table.addresses.temporal, NAMESPACE);
  try {
    return await action(session, table);
  } finally {
    await session.close();
  }
}

/** Runs `action` with the home's store; what is wrong with the store is the user's to mend. */
export async function withStore<T>(home: Home, action: (store: ArtifactStore) => Promise<T>): Promise<T> {
  try {
    return await action(openStore(home.store, { onWarning: ({ message }) => progress(message) }));
  } catch (error) {
    if (
      error instanceof CorruptArtifactError ||
      error instanceof StoreUnavailableError ||
      error instanceof StoreAddressError
    ) {
      throw new CliError('badInput', error.message, { cause: error });
    }
    throw error;
  }
}

/** An abort signal that Ctrl-C (or SIGTERM) sets; `release` gives the signals back. */
export function untilInterrupted(): { signal: AbortSignal; release: () => void } {
  const controller = new AbortController();
  const abort = (): void => controller.abort();
  process.on('SIGINT', abort);
  process.on('SIGTERM', abort);
  return {
    signal: controller.signal,
    release: () => {
      process.off('SIGINT', abort);
      process.off('SIGTERM', abort);
    },
  };
}

/** Parser of a whole-number option. */
export function wholeNumber(name: string, min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < min || value > max) {
      throw new CliError('badInput', `${name}: expected a whole number from ${min} to ${max}, got "${text}"`);
    }
    return value;
  };
}
