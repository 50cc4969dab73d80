import { describe, expect, it, vi } from 'vitest';

import type { Incident } from '../../workflows/contract.js';
import { Metrics } from '../telemetry/metrics.js';
import { FleetRegistry } from './registry.js';
import { RunMetrics, scrapeTargets } from './run-metrics.js';

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

describe('the codes of stage 1', () => {
  const level = { usage: 1, perplexity: 7.5, deadCodes: 0, gini: 0.25 };
  const codes = { levels: [level], uniqueRateBeforeFit: 0.75, relativeError: 0.125, heldOut: null };

  it('tell error and spread, and the last job of the stage has the last word', async () => {
    const metrics = new Metrics({ exporter: 'controller', version: '0' });
    const run = new RunMetrics(metrics);
    const held = { ...codes, heldOut: { items: 9, relativeError: 0.5, trainedRelativeError: 0.1 } };
    run.jobEvent({ runId: 'r', stage: 'align_tokens', jobId: 'r/codebooks' }, finished(held));
    expect(await metrics.text()).toContain('collimate_codebook_error_ratio{run="r",items="held_out"} 0.5\n');
    expect(await metrics.text()).not.toContain('collimate_alignment_recall_ratio{');
    const alignment = { before: { recallAt1: 0.5, recallAt10: 0.75 }, after: { recallAt1: 0.625, recallAt10: 0.875 } };
    const aligned = { ...codes, relativeError: 0.25, alignment };
    run.jobEvent({ runId: 'r', stage: 'align_tokens', jobId: 'r/align_codes' }, finished(aligned));
    const text = await metrics.text();
    expect(text).toContain('collimate_codebook_error_ratio{run="r",items="all"} 0.25\n');
    expect(text).toContain('collimate_codebook_gini_ratio{run="r",level="1"} 0.25\n');
    expect(text).toContain('collimate_alignment_recall_ratio{run="r",moment="before",cutoff="1"} 0.5\n');
    expect(text).toContain('collimate_alignment_recall_ratio{run="r",moment="after",cutoff="10"} 0.875\n');
  });
});

describe('recoveries and seconds of a run', () => {
  it('count what has ended, and go with the run', async () => {
    vi.useFakeTimers();
    try {
      const metrics = new Metrics({ exporter: 'controller', version: '0' });
      const run = new RunMetrics(metrics);
      const incident = incidentWith({ lastProgress: 1_000, detected: 1_500, fenced: 1_700, rescheduled: null });
      run.incident('r', incident, 'opened');
      expect(await metrics.text()).not.toContain('collimate_recovery_duration_seconds_count{');
      run.incident('r', incident, 'closed');
      run.runState('r', null, 'done');
      // The last word about its time comes after the run's end.
      run.seconds('r', { work: 3, queue: 1 });
      const text = await metrics.text();
      expect(text).toContain('collimate_restarts_total{run="r",stage="align_tasks",cause="worker_lost"} 1');
      expect(text).toContain('collimate_recovery_duration_seconds_sum{run="r",stage="align_tasks",phase="fence"} 0.2');
      expect(text).not.toContain('phase="reschedule"');
      expect(text).toContain('collimate_run_purpose_seconds{run="r",purpose="work"} 3');
      vi.runAllTimers();
      expect(await metrics.text()).not.toContain('run="r"');
    } finally {
      vi.useRealTimers();
    }
  });
});

describe('workers to scrape', () => {
  it('are those that have joined, each where it can be reached', () => {
    const fleet = new FleetRegistry();
    const join = (workerId: string, metricsAddress: string) =>
      fleet.join({ workerId, address: '10.0.0.7:7', metricsAddress, numericsClass: 'c', engineRevision: 'e', pid: 1 });
    join('a', '127.0.0.1:91');
    join('b', '0.0.0.0:92');
    join('c', '[::]:93');
    join('d', '');
    fleet.leave(join('e', '127.0.0.1:94'));
    expect(scrapeTargets(fleet)).toEqual([
      { targets: ['127.0.0.1:91'], labels: { worker: 'a' } },
      { targets: ['10.0.0.7:92'], labels: { worker: 'b' } },
      { targets: ['10.0.0.7:93'], labels: { worker: 'c' } },
    ]);
  });
});

function incidentWith(phases: Partial<Incident['phases']> & { detected: number }): Incident {
  return {
    id: 'tune#1',
    stage: 'align_tasks',
    job: 'tune',
    jobKind: 'tune',
    cause: 'worker_lost',
    message: '',
    workerId: 'w-0',
    rank: 0,
    epoch: 1,
    action: '',
    failedAtStep: 3,
    resumedFromStep: 3,
    phases: { lastProgress: null, fenced: null, rescheduled: null, restored: null, firstStep: null, ...phases },
    log: [],
  };
}
