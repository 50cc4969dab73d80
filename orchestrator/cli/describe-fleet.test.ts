/** What an operator reads of the fleet. */
import { expect, test } from 'vitest';

import { type WorkerInfo__Output } from '../../proto/generated/collimate/v1/WorkerInfo.js';
import { ageOf, describeWorkers, workerState } from './describe-fleet.js';

const NOW = 10_000;
const worker = (workerId: string, change: Partial<WorkerInfo__Output> = {}): WorkerInfo__Output => ({
  hello: {
    ...{ workerId, address: '10.0.0.2:7001', metricsAddress: '', numericsClass: 'cpu-avx2', engineRevision: 'r1' },
    pid: 4242,
  },
  lease: null,
  joinedUnixSeconds: NOW - 3_700,
  lastSeenUnixSeconds: NOW - 1,
  progress: null,
  draining: false,
  cordoned: false,
  ...change,
});
const lease = { jobId: 'demo-20261125-101500-ab12/tune', epoch: 1 };
const progress = { step: 120, phase: 'computing', waitingForRank: -1 };

test('states are told apart', () => {
  const stateOf = (change: Partial<WorkerInfo__Output>): string => workerState(worker('w', change), NOW);
  expect(stateOf({})).toBe('idle');
  expect(stateOf({ lease, progress })).toBe('computing');
  expect(stateOf({ lease })).toBe('busy');
  expect(stateOf({ lease, progress, cordoned: true })).toBe('computing, cordoned');
  expect(stateOf({ cordoned: true })).toBe('idle, cordoned');
  expect(stateOf({ lease, draining: true, cordoned: true })).toBe('draining');
  expect(stateOf({ draining: true, cordoned: true })).toBe('drained');
  expect(stateOf({ lease, progress, lastSeenUnixSeconds: NOW - 6 })).toBe('silent');
});

test('a line for each worker, and once what they have in common', () => {
  const text = describeWorkers([worker('w-1', { lease, progress }), worker('w-2')], NOW);
  expect(text.split('\n')).toEqual([
    'WORKER  STATE      ADDRESS         PID  UP  STEP  JOB',
    'w-1     computing  10.0.0.2:7001  4242  1h   120  demo-20261125-101500-ab12/tune',
    'w-2     idle       10.0.0.2:7001  4242  1h',
    '',
    'all: cpu-avx2, engine r1',
  ]);
});

test('a mixed fleet says who is what, an empty one what to do', () => {
  const other = worker('w-2');
  if (other.hello !== null) other.hello.numericsClass = 'cuda-sm_90';
  expect(describeWorkers([worker('w-1'), other], NOW)).toContain(
    'w-1: cpu-avx2, engine r1\nw-2: cuda-sm_90, engine r1',
  );
  expect(describeWorkers([], NOW)).toContain('collimate worker');
});

test('ages are of one unit', () => {
  expect([5, 59.9, 60, 3_599, 3_600, 90_000].map(ageOf)).toEqual(['5s', '59s', '1m', '59m', '1h', '1d']);
});
