/** From whatever a job threw to the failure class that the orchestrator acts on. */
import {
  CorruptArtifactError,
  NondeterminismError,
  StoreUnavailableError,
} from '../../orchestrator/artifacts/errors.js';
import type { FailureCause } from '../../proto/generated/collimate/v1/FailureCause.js';
import { BadInputError } from '../../orchestrator/recommender/domain-job.js';

export interface Failure {
  cause: FailureCause;
  message: string;
}

export function failureOf(error: unknown): Failure {
  const message = error instanceof Error ? error.message : String(error);
  return { cause: causeOf(error), message };
}

function causeOf(error: unknown): FailureCause {
  if (error instanceof BadInputError) return 'FAILURE_CAUSE_BAD_INPUT';
  if (error instanceof CorruptArtifactError) return 'FAILURE_CAUSE_CORRUPT_ARTIFACT';
  if (error instanceof StoreUnavailableError) return 'FAILURE_CAUSE_STORE_UNAVAILABLE';
  if (error instanceof NondeterminismError) return 'FAILURE_CAUSE_NONDETERMINISM';
  if (error instanceof Error) {
    // Native failures and failures from a domain thread carry the cause's name; file errors carry errno names.
    const code = 'code' in error ? String(error.code) : '';
    if (NATIVE_CAUSES.has(code)) return `FAILURE_CAUSE_${code.toUpperCase()}` as FailureCause;
    // `aborted` is how an attempt ends that was given up; nobody is left to act on its cause.
    if (error.name === 'BadInputError') return 'FAILURE_CAUSE_BAD_INPUT';
    if (STORE_ERRNOS.has(code)) return 'FAILURE_CAUSE_STORE_UNAVAILABLE';
    if (code === 'ERR_WORKER_OUT_OF_MEMORY') return 'FAILURE_CAUSE_OUT_OF_MEMORY';
  }
  return 'FAILURE_CAUSE_INTERNAL';
}

const NATIVE_CAUSES = new Set([
  'peer_lost',
  'out_of_memory',
  'device_lost',
  'nan_loss',
  'bad_input',
  'corrupt_artifact',
  'store_unavailable',
  'nondeterminism',
  'internal',
]);
const STORE_ERRNOS = new Set(['ENOSPC', 'EROFS', 'EACCES', 'EDQUOT', 'EIO']);
