/**
 * Starts the workflow of a verification and follows it to its outcomes.
 *
 * 1. The workflow is what goes on when a controller or the server is away; only a long silence is given up on.
 * 2. Left with Ctrl-C it is cancelled, and waited for until it has given its workers back.
 */
import { setTimeout as sleep } from 'node:timers/promises';

import {
  TASK_QUEUE,
  VERIFY_OUTCOMES_QUERY,
  VERIFY_WORKFLOW,
  verifyWorkflowId,
  type IntervalOutcome,
  type VerificationRequest,
} from '../../workflows/contract.js';
import { CliError, messageOf } from './cli-error.js';
import { type TemporalSession } from './temporal-connection.js';

const POLL_MS = 500;
const SILENCE_MS_MAX = 60_000;
const CANCEL_MS_MAX = 60_000;

export interface FollowedVerification {
  session: TemporalSession;
  request: VerificationRequest;
  signal: AbortSignal;
  /** Told of each outcome once, in order. */
  onOutcome: (index: number, outcome: IntervalOutcome) => void;
}

export async function followVerification(followed: FollowedVerification): Promise<IntervalOutcome[]> {
  const { session, request, signal, onOutcome } = followed;
  const what = `verification of ${request.runId}`;
  await start(session, request);
  const handle = session.client.workflow.getHandle(verifyWorkflowId(request.runId));
  let told = 0;
  const tell = (outcomes: IntervalOutcome[]): void => {
    for (const outcome of outcomes.slice(told)) onOutcome(told++, outcome);
  };
  let heardMs = Date.now();
  let cancelledMs: number | null = null;
  for (;;) {
    if (signal.aborted && cancelledMs === null) {
      await session.call(`cancel of the ${what}`, () => handle.cancel());
      cancelledMs = Date.now();
    }
    if (cancelledMs !== null && Date.now() - cancelledMs > CANCEL_MS_MAX) {
      throw new CliError('timeout', `the ${what} has not ended ${CANCEL_MS_MAX / 1000} s after its cancellation`);
    }
    try {
      const { status } = await session.call(what, () => handle.describe());
      if (status.name !== 'RUNNING' && status.name !== 'CONTINUED_AS_NEW') break;
      tell(await session.call(what, () => handle.query<IntervalOutcome[]>(VERIFY_OUTCOMES_QUERY)));
      heardMs = Date.now();
    } catch (error) {
      const passing = error instanceof CliError && (error.exit === 'timeout' || error.exit === 'unreachable');
      if (!passing || Date.now() - heardMs > SILENCE_MS_MAX) throw error;
    }
    await sleep(POLL_MS, undefined, { signal }).catch(() => undefined);
    // The sleep ends at once from now on.
    if (signal.aborted) await sleep(POLL_MS);
  }
  try {
    const outcomes = (await session.call(what, () => handle.result())) as IntervalOutcome[];
    tell(outcomes);
    return outcomes;
  } catch (error) {
    throw explained(error, what);
  }
}

async function start(session: TemporalSession, request: VerificationRequest): Promise<void> {
  const { runId } = request;
  try {
    await session.call(`start of the verification of ${runId}`, () =>
      session.client.workflow.start(VERIFY_WORKFLOW, {
        taskQueue: TASK_QUEUE,
        workflowId: verifyWorkflowId(runId),
        args: [request],
      }),
    );
  } catch (error) {
    if (!(error instanceof Error) || error.name !== 'WorkflowExecutionAlreadyStartedError') throw error;
    throw new CliError('badInput', `a verification of ${runId} is under way; wait until it has ended`, {
      cause: error,
    });
  }
}

/** What ended the workflow, for the user. */
function explained(error: unknown, what: string): unknown {
  if (!(error instanceof Error) || error.name !== 'WorkflowFailedError') return error;
  let cause: unknown = error.cause;
  while (cause instanceof Error && cause.name !== 'ApplicationFailure' && cause.cause !== undefined)
    cause = cause.cause;
  if (cause instanceof Error && cause.name === 'CancelledFailure') {
    return new CliError('cancelled', `the ${what} was cancelled`, { cause: error });
  }
  const noWorkers = cause instanceof Error && 'type' in cause && cause.type === 'no_workers';
  return new CliError(noWorkers ? 'timeout' : 'runFailed', `the ${what} failed: ${messageOf(cause)}`, { cause: error });
}
