/** The overview of runs and fleet. */
import { expect, test } from 'vitest';

import { type RunStatus } from '../../../workflows/contract.js';
import { describeOverview } from './top.js';

const at = (minute: number): string => new Date(Date.UTC(2026, 0, 1, 10, minute)).toISOString();
const NOW = Date.parse(at(30));
const status = {
  ...{ runId: 'demo-1', state: 'running', seconds: { work: 95, queue: 5 }, incidents: [{}, {}] },
  stages: [
    { name: 'embed', state: 'done', jobs: [] },
    {
      name: 'align_tasks',
      state: 'running',
      jobs: [
        { kind: 'render', step: 2, stepsTotal: 2, memoised: false },
        { kind: 'tune', step: 240, stepsTotal: 800, memoised: false },
      ],
    },
  ],
} as unknown as RunStatus;

test('runs under way with what they do, ended ones with how long they took, and the fleet', () => {
  const runs = [
    { runId: 'demo-1', state: 'running', started: at(18), ended: null, status },
    { runId: 'demo-0', state: 'done', started: at(0), ended: at(9), status: null },
  ];
  const text = describeOverview({ runs, workers: [] }, NOW);
  expect(text.slice(0, 5)).toEqual([
    '1 run under way; 0 workers, 0 busy',
    '',
    'RUN     STATE    DOES       GOODPUT  INC  AGE',
    'demo-1  running  tune 30 %  95 %     2    12m',
    'demo-0  done                              9m',
  ]);
  expect(text.at(-1)).toContain('nobody has joined');
  expect(describeOverview({ runs: [], workers: [] }, NOW)).toContain('no runs yet');
});
