import { describe, expect, it } from 'vitest';

import { Metrics } from '../telemetry/metrics.js';
import { RunMetrics } from './run-metrics.js';

const finished = (summary: object) => ({
  jobId: '',
  epoch: 1,
  rank: 0,
  sequence: 1,
  finished: { resultJson: JSON.stringify({ outputs: {}, summary }) },
});

describe('the search loss of rank shards', () => {
  const loss = { prompts: 8, givenUp: 1, bestMissed: 0.25, bestGap: 0.5, overlap: 0.75 };
  const told = async (...jobs: [jobId: string, searchLoss: object | null][]): Promise<string> => {
    const metrics = new Metrics({ exporter: 'controller', version: '0' });
    const run = new RunMetrics(metrics);
    for (const [jobId, searchLoss] of jobs) {
      run.jobEvent({ runId: 'r', stage: 'evaluate', jobId }, finished({ users: 9, searchLoss }));
    }
    return metrics.text();
  };

  it('adds up over shards, as sums whose quotient is the mean of all', async () => {
    const none = { prompts: 0, givenUp: 4, bestMissed: null, bestGap: null, overlap: null };
    const text = await told(
      ['r/rank/test_prompts/0', loss],
      ['r/rank/test_prompts/1', { ...loss, prompts: 2, bestMissed: 0.5 }],
      ['r/rank/test_prompts/2', none],
      ['r/rank/test_prompts/3', null],
    );
    const of = '{run="r",stage="evaluate"}';
    expect(text).toContain(`collimate_search_compared_prompts_total${of} 10\n`);
    expect(text).toContain(`collimate_search_uncompared_prompts_total${of} 6\n`);
    expect(text).toContain(`collimate_search_missed_prompts_total${of} 3\n`);
    expect(text).toContain(`collimate_search_best_gap_total${of} 5\n`);
    expect(text).toContain(`collimate_search_overlap_total${of} 7.5\n`);
  });

  it('is asked of rank shards only, and told nothing by those that measured none', async () => {
    const text = await told(['r/evaluate', loss], ['r/rank/test_prompts/0', null]);
    expect(text).not.toContain('collimate_search_compared_prompts_total{');
  });
});
