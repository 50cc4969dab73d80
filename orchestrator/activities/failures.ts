/** Errors of the store become failures that the workflow can classify. */
import { ApplicationFailure, CancelledFailure, Context } from '@temporalio/activity';

import type { FailureCause } from '../../workflows/contract.js';
import { CorruptArtifactError, NondeterminismError, StoreUnavailableError } from '../artifacts/errors.js';

/** Tries of one activity before an unknown error becomes the workflow's business. */
const UNKNOWN_TRIES = 10;
/** The same for a store that takes no reads or writes, where the workflow can wait for it and say so. */
const STORE_TRIES = 3;

export function classified(cause: FailureCause, message: string, workerId: string | null = null): ApplicationFailure {
  return ApplicationFailure.nonRetryable(message, cause, workerId);
}

/**
 * Runs `body`; store errors become classified failures, others pass and are retried by Temporal. A store that is unavailable is
 * retried for as long as it takes, unless the workflow wants to hear of it.
 */
export async function classifyingStoreErrors<T>(
  body: () => Promise<T>,
  { tellsWorkflow = false }: { tellsWorkflow?: boolean } = {},
): Promise<T> {
  try {
    return await body();
  } catch (error) {
    if (error instanceof StoreUnavailableError) {
      const enough = tellsWorkflow && Context.current().info.attempt >= STORE_TRIES;
      if (enough) throw classified('store_unavailable', error.message);
      throw ApplicationFailure.retryable(error.message, 'store_unavailable');
    }
    if (error instanceof CorruptArtifactError) throw classified('corrupt_artifact', error.message);
    if (error instanceof NondeterminismError) throw classified('nondeterminism', error.message);
    throw error;
  }
}

/** An error that no retry cures ends the run with its message instead of being repeated for ever, seen by nobody. */
export function endingUnknownErrors<Args extends unknown[], Result>(
  activity: (...args: Args) => Promise<Result>,
): (...args: Args) => Promise<Result> {
  return async (...args) => {
    try {
      return await activity(...args);
    } catch (error) {
      const { info, cancellationSignal } = Context.current();
      const known = error instanceof ApplicationFailure || error instanceof CancelledFailure;
      if (known || cancellationSignal.aborted || info.attempt < UNKNOWN_TRIES) throw error;
      throw classified('internal', error instanceof Error ? error.message : String(error));
    }
  };
}
