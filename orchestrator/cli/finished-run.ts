/** What the store has of a run that came to its result: its plan and its result. */
import { type RunPlan, type RunResult } from '../../workflows/contract.js';
import { type ArtifactStore } from '../artifacts/store.js';
import { CliError } from './cli-error.js';

export interface FinishedRun {
  plan: RunPlan;
  result: RunResult;
}

export async function readFinishedRun(store: Pick<ArtifactStore, 'readRunFile'>, runId: string): Promise<FinishedRun> {
  const result = await readRunJson<RunResult>(store, runId, 'result.json');
  const plan = await readRunJson<RunPlan>(store, runId, 'plan.json');
  if (plan === null) {
    throw new CliError(
      'notFound',
      `expected a run in the store, but there is none called "${runId}"; see "collimate ls"`,
    );
  }
  if (result === null) {
    throw new CliError(
      'badInput',
      `expected a finished run, but ${runId} has no result; see "collimate status ${runId}"`,
    );
  }
  return { plan, result };
}

async function readRunJson<T>(
  store: Pick<ArtifactStore, 'readRunFile'>,
  runId: string,
  name: string,
): Promise<T | null> {
  try {
    const bytes = await store.readRunFile(runId, name);
    return bytes === null ? null : (JSON.parse(bytes.toString('utf8')) as T);
  } catch (error) {
    // A name that cannot be a run id.
    if (error instanceof TypeError) return null;
    throw error;
  }
}
