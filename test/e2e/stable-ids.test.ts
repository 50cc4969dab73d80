/** Items keep their semantic ids from run to run while others come, in the form of RQ-VAE with alignment as in any other. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { RunResult } from '../../workflows/contract.js';
import { readCatalogue } from '../../orchestrator/recommender/catalogue.js';
import { SafetensorsFile } from '../../orchestrator/recommender/safetensors.js';
import { Cluster } from '../support/cluster.js';

const FORM = [
  ...['codebooks.rqvae.latentDim=16', 'codebooks.rqvae.steps=60', 'codebooks.rqvae.warmupSteps=20'],
  ...['codebooks.alignment.weight=0.1', 'codebooks.alignment.steps=20', 'codebooks.alignment.batchItems=32'],
];

describe('ids of an earlier run', () => {
  let cluster: Cluster;
  beforeAll(async () => {
    cluster = await Cluster.start([{ id: 'w-0' }, { id: 'w-1' }]);
  });
  afterAll(async () => {
    await cluster.close();
  });

  /** Codes by the items' external ids. */
  async function idsOf(result: RunResult, job: string): Promise<Map<string, string>> {
    const path = (job: string, output: string) => cluster.store.localPath(result.jobs[job]?.outputs[output] ?? '');
    const codes = (await SafetensorsFile.open(await path(job, 'codes'))).i32('codes', [-1, 3]).data;
    const items = await readCatalogue(await path('ingest', 'catalogue'));
    return new Map(items.map(({ item }, row) => [item, codes.subarray(3 * row, 3 * row + 3).join('-')]));
  }

  it('stay when items come later, and the run ranks by them', async () => {
    const original = await cluster.plan(FORM);
    await cluster.store.writeRunFile(original.runId, 'plan.json', JSON.stringify(original));
    const first = await cluster.run(original);
    const before = await idsOf(first, 'align_codes');
    const plan = await cluster.plan([...FORM, 'data.simulate.items=130', `codebooks.published=${first.runId}`]);
    const second = await cluster.run(plan);
    const after = await idsOf(second, 'codebooks');

    const stayed = [...before].filter(([item]) => after.has(item));
    expect(stayed.length).toBeGreaterThan(90);
    for (const [item, id] of stayed) expect(after.get(item), item).toBe(id);
    const added = [...after].filter(([item]) => !before.has(item));
    expect(added.length).toBeGreaterThan(0);
    const taken = new Set(before.values());
    for (const [item, id] of added) expect(taken.has(id), item).toBe(false);
    expect(second.jobs['carry_ids']?.summary).toMatchObject({ kept: stayed.length, added: added.length });

    // Nothing was aligned anew, and tuning begins where the earlier run's codes lie among the texts.
    expect(second.jobs).not.toHaveProperty('align_codes');
    expect(second.jobs['evaluate']?.summary).toHaveProperty('model');
    await expect(cluster.plan(['codebooks.levels=2', `codebooks.published=${first.runId}`])).rejects.toThrow(
      /expected 3 levels of 16 codes .* got 2 levels of 16 codes/,
    );
  });
});
