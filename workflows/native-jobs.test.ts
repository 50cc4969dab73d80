import { describe, expect, it } from 'vitest';

import type { RunPlan } from './contract.js';
import { alignCodesJob, carryIdsJob, codebooksJob, codesJobName, rqvaeJob, tuneJob } from './native-jobs.js';

const outputOf = (job: string, output: string): string => `${job}:${output}`;
const ALIGNMENT = {
  ...{ weight: 0.1, prefixWeight: 0, temperature: 0.07, steps: 9, batchItems: 8, learningRate: 0.001 },
  initialiseTokens: true,
};

function planWith(recipes: Partial<RunPlan['recipes']>, baseFiles: Record<string, string> = {}): RunPlan {
  const plan: Pick<RunPlan, 'checkpointIntervalSteps' | 'baseFiles' | 'inputs'> & {
    recipes: Partial<RunPlan['recipes']>;
  } = {
    checkpointIntervalSteps: { dccf: 1, codebooks: 2, tune: 3, dense: 4 },
    baseFiles,
    inputs: {},
    recipes: {
      textVectors: {},
      codebooks: { levels: 3, beam: 4, collaborativeWeight: 1, textWeight: 0.5, seed: 6 },
      tune: { lanes: 8 },
      ...recipes,
    },
  };
  return plan as RunPlan;
}

describe('jobs of a run whose items keep their ids', () => {
  const earlierIds = { runId: 'r', codes: 'C', catalogue: 'I', published: 'P', aligned: 'A' };

  it('carries the ids over, and trains no codebooks on them', () => {
    const plan = { ...planWith({ alignment: ALIGNMENT }), earlierIds };
    expect(carryIdsJob(plan, outputOf)?.inputs).toEqual({
      catalogue: 'ingest:catalogue',
      ...{ earlier_catalogue: 'I', earlier_codes: 'C', earlier_published: 'P' },
    });
    expect(codebooksJob(plan, outputOf).inputs['published']).toBe('carry_ids:published');
    expect(alignCodesJob(plan, outputOf)).toBeNull();
    expect(codesJobName(plan)).toBe('codebooks');
    expect(tuneJob(plan, outputOf).inputs['aligned']).toBe('A');
    const unaligned = { ...plan, earlierIds: { ...earlierIds, aligned: null } };
    expect(tuneJob(unaligned, outputOf).inputs).not.toHaveProperty('aligned');
  });

  it('has nothing of it where plans name no earlier run', () => {
    for (const plan of [planWith({}), { ...planWith({}), earlierIds: null }]) {
      expect(carryIdsJob(plan, outputOf)).toBeNull();
      expect(codebooksJob(plan, outputOf).inputs).not.toHaveProperty('published');
    }
  });
});

describe('jobs of a run in the form of RQ-VAE', () => {
  const RQVAE = { latentDim: 8, hiddenDim: 16, steps: 9, warmupSteps: 2, batchItems: 8 };

  it('encodes the vectors by their weights, then clusters and aligns the latents', () => {
    const plan = planWith({ rqvae: RQVAE, alignment: ALIGNMENT });
    const job = rqvaeJob(plan, outputOf);
    expect(job?.recipe).toMatchObject({ latentDim: 8, levels: 3, textWeight: 0.5, seed: 6 });
    expect(job?.inputs).toEqual({ collaborative: 'dccf:embeddings', text: 'text_vectors:text_vectors' });
    const codebooks = codebooksJob(plan, outputOf);
    expect(codebooks.inputs).toEqual({ collaborative: 'rqvae:latents' });
    expect(codebooks.recipe).toMatchObject({ levels: 3, collaborativeWeight: 1, textWeight: 0 });
    const align = alignCodesJob(plan, outputOf);
    expect(align?.recipe).toMatchObject({ collaborativeWeight: 1, textWeight: 0 });
    expect(align?.inputs).toMatchObject({ collaborative: 'rqvae:latents', text: 'text_vectors:text_vectors' });
  });

  it('leaves the job out where plans do not name it', () => {
    for (const plan of [planWith({}), planWith({ rqvae: null })]) {
      expect(rqvaeJob(plan, outputOf)).toBeNull();
      expect(codebooksJob(plan, outputOf).recipe).toEqual(plan.recipes.codebooks);
    }
  });
});

describe('jobs of a run with and without alignment', () => {
  it('leaves the job out, and goes on with the clustered codes, where plans name no alignment', () => {
    for (const plan of [planWith({}), planWith({ alignment: null })]) {
      expect(alignCodesJob(plan, outputOf)).toBeNull();
      expect(codesJobName(plan)).toBe('codebooks');
      expect(tuneJob(plan, outputOf).inputs).not.toHaveProperty('aligned');
    }
  });

  it('aligns the rows that were clustered, and the token rows begin there', () => {
    const plan = planWith({ alignment: ALIGNMENT });
    const job = alignCodesJob(plan, outputOf);
    expect(job?.recipe).toMatchObject({ weight: 0.1, steps: 9, beam: 4, textWeight: 0.5, seed: 6 });
    // What only concerns tuning must not make the codes another job.
    expect(job?.recipe).not.toHaveProperty('initialiseTokens');
    expect(job?.inputs).toMatchObject({ codes: 'codebooks:codes', text: 'text_vectors:text_vectors' });
    expect(codesJobName(plan)).toBe('align_codes');
    expect(tuneJob(plan, outputOf).inputs['aligned']).toBe('align_codes:aligned');
  });

  it('lets an adapter, or the run file, begin the token rows elsewhere', () => {
    const adapted = planWith({ alignment: ALIGNMENT }, { 'adapter/adapter_config.json': 'd' });
    expect(tuneJob(adapted, outputOf).inputs).not.toHaveProperty('aligned');
    const off = planWith({ alignment: { ...ALIGNMENT, initialiseTokens: false } });
    expect(tuneJob(off, outputOf).inputs).not.toHaveProperty('aligned');
  });

  it("takes the texts of the base model's hidden states where the plan has them", () => {
    const plan = planWith({ textVectors: null, embedText: { tokensMax: 8 }, alignment: ALIGNMENT });
    expect(codebooksJob(plan, outputOf).inputs['text']).toBe('embed_text:text_vectors');
    expect(alignCodesJob(plan, outputOf)?.inputs['text']).toBe('embed_text:text_vectors');
    expect(codebooksJob(planWith({ textVectors: null }), outputOf).inputs).not.toHaveProperty('text');
  });
});
