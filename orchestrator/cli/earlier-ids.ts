/** The semantic ids of an earlier run that a new one goes on with (`codebooks.published` of the run file). */
import { type EarlierIds, type RunPlan } from '../../workflows/contract.js';
import { codesJobName } from '../../workflows/native-jobs.js';
import { CliError } from './cli-error.js';
import { readFinishedRun } from './finished-run.js';
import { type PlanStore } from './run-plan.js';

/** CliError where there is no such run, it has no result, or its ids are of another shape than the new run's. */
export async function earlierIdsOf(
  store: Pick<PlanStore, 'readRunFile'>,
  runId: string,
  recipes: RunPlan['recipes'],
): Promise<EarlierIds> {
  const { plan, result } = await readFinishedRun(store, runId);
  const shapeOf = ({ codebooks }: RunPlan['recipes']): string =>
    `${Number(codebooks['levels'])} levels of ${Number(codebooks['codes'])} codes`;
  if (shapeOf(plan.recipes) !== shapeOf(recipes)) {
    throw new CliError(
      'badInput',
      `codebooks.published: expected ${shapeOf(plan.recipes)} as in ${runId}, got ${shapeOf(recipes)}; ids of another shape cannot stay`,
    );
  }
  const output = (job: string, name: string): string | null => result.jobs[job]?.outputs[name] ?? null;
  const codes = output(codesJobName(plan), 'codes');
  const catalogue = output('ingest', 'catalogue');
  if (codes === null || catalogue === null) {
    throw new CliError('badInput', `codebooks.published: expected a run with ids, got ${runId}, whose result has none`);
  }
  return {
    runId,
    codes,
    catalogue,
    published: output('carry_ids', 'published'),
    aligned: output('align_codes', 'aligned') ?? plan.earlierIds?.aligned ?? null,
  };
}
