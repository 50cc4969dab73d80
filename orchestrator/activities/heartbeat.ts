/**
 * Heartbeats at a fixed pace beside an activity, whatever it waits for. Temporal then misses one that is gone within seconds: with
 * its host, or because the word of its end was lost with a server.
 */
import { Context } from '@temporalio/activity';

const HEARTBEAT_MS = 1_000;

export function withHeartbeats<Args extends unknown[], Result>(
  activity: (...args: Args) => Promise<Result>,
): (...args: Args) => Promise<Result> {
  return async (...args) => {
    const context = Context.current();
    const beat = setInterval(() => {
      context.heartbeat();
    }, HEARTBEAT_MS);
    try {
      return await activity(...args);
    } finally {
      clearInterval(beat);
    }
  };
}

/** Aborts once the activity is cancelled, which it hears of by its heartbeats. */
export function cancellationSignal(): AbortSignal {
  return Context.current().cancellationSignal;
}
