/** Errors of the store become failures that the workflow can classify. */
import { ApplicationFailure } from '@temporalio/activity';

import type { FailureCause } from '../../workflows/contract.js';
import { CorruptArtifactError, NondeterminismError, StoreUnavailableError } from '../artifacts/errors.js';

export function classified(cause: FailureCause, message: string): ApplicationFailure {
  return ApplicationFailure.nonRetryable(message, cause);
}

/** Runs `body`; store errors become classified failures, others pass and are retried by Temporal. */
export async function classifyingStoreErrors<T>(body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (error) {
    if (error instanceof StoreUnavailableError) throw classified('store_unavailable', error.message);
    if (error instanceof CorruptArtifactError) throw classified('corrupt_artifact', error.message);
    if (error instanceof NondeterminismError) throw classified('nondeterminism', error.message);
    throw error;
  }
}
