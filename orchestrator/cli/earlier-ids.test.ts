/** Which ids of an earlier run a new one goes on with, and which runs are refused. */
import { describe, expect, it } from 'vitest';

import { type RunPlan, type RunResult } from '../../workflows/contract.js';
import { defaultRecipes } from '../recommender/default-recipes.js';
import { earlierIdsOf } from './earlier-ids.js';

const recipes = defaultRecipes() as unknown as RunPlan['recipes'];
const jobsOf = (outputs: Record<string, Record<string, string>>): RunResult['jobs'] =>
  Object.fromEntries(Object.entries(outputs).map(([job, of]) => [job, { key: job, outputs: of, summary: {} }]));
const WHOLE = { ingest: { catalogue: 'items' }, codebooks: { codes: 'clustered' } };

function storeWith(plan: Partial<RunPlan>, jobs: RunResult['jobs'] | null) {
  const files: Record<string, unknown> = { 'plan.json': plan, 'result.json': jobs && { jobs } };
  return {
    readRunFile: (runId: string, name: string) =>
      Promise.resolve(runId === 'before' && files[name] ? Buffer.from(JSON.stringify(files[name])) : null),
  };
}

describe('ids of an earlier run', () => {
  it('are those of its clustering, or of its alignment where it had one', async () => {
    expect(await earlierIdsOf(storeWith({ recipes }, jobsOf(WHOLE)), 'before', recipes)).toEqual({
      ...{ runId: 'before', codes: 'clustered', catalogue: 'items', published: null, aligned: null },
    });
    const aligned = { ...WHOLE, align_codes: { codes: 'moved', aligned: 'rows' } };
    const plan = { recipes: { ...recipes, alignment: {} } };
    const ids = await earlierIdsOf(storeWith(plan, jobsOf(aligned)), 'before', recipes);
    expect(ids).toMatchObject({ codes: 'moved', aligned: 'rows' });
  });

  it('bring what that run had taken over itself', async () => {
    const earlierIds = { runId: 'first', codes: 'c', catalogue: 'i', published: null, aligned: 'rows of the first' };
    const jobs = jobsOf({ ...WHOLE, carry_ids: { published: 'retired ones' } });
    const plan = { recipes: { ...recipes, alignment: {} }, earlierIds };
    const ids = await earlierIdsOf(storeWith(plan, jobs), 'before', recipes);
    // Nothing was aligned anew: the codes are those of `codebooks`.
    expect(ids).toMatchObject({ codes: 'clustered', published: 'retired ones', aligned: 'rows of the first' });
  });

  it('are refused where there is no such run, no result, no ids, or another shape', async () => {
    const of = (store: ReturnType<typeof storeWith>, runId = 'before') => earlierIdsOf(store, runId, recipes);
    await expect(of(storeWith({ recipes }, jobsOf(WHOLE)), 'other')).rejects.toThrow(/none called "other"/);
    await expect(of(storeWith({ recipes }, null))).rejects.toThrow(/before has no result/);
    await expect(of(storeWith({ recipes }, jobsOf({})))).rejects.toThrow(/expected a run with ids, got before/);
    const narrow = { ...recipes, codebooks: { ...recipes.codebooks, levels: 3 } };
    await expect(of(storeWith({ recipes: narrow }, jobsOf(WHOLE)))).rejects.toThrow(
      'expected 3 levels of 256 codes as in before, got 4 levels of 256 codes; ids of another shape cannot stay',
    );
  });
});
