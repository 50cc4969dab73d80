/** Heartbeats at a fixed pace beside a body that waits, whatever it waits for; a call in it may take longer than the timeout. */
import { Context } from '@temporalio/activity';

const HEARTBEAT_MS = 1_000;

/** `signal` aborts once the activity is cancelled. */
export async function withHeartbeats<T>(
  body: (signal: AbortSignal) => Promise<T>,
  details: () => unknown = () => undefined,
): Promise<T> {
  const context = Context.current();
  const beat = setInterval(() => {
    context.heartbeat(details());
  }, HEARTBEAT_MS);
  try {
    return await body(context.cancellationSignal);
  } finally {
    clearInterval(beat);
  }
}
