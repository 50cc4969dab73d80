import { expect, test } from 'vitest';

import { type Incident, type JobProgress, type RunStatus } from '../../workflows/contract.js';
import { describeFleet, describeGoodput, describeIncidents, describeStatus } from './describe-status.js';

const job: JobProgress = {
  kind: 'tune',
  key: '',
  epoch: 2,
  step: 30,
  stepsTotal: 60,
  checkpointStep: 20,
  workers: ['w-0'],
  memoised: false,
  blocked: null,
};
const incident: Incident = {
  id: 'tune#1',
  stage: 'align_tasks',
  job: 'tune',
  jobKind: 'tune',
  cause: 'worker_lost',
  message: 'worker w-1 at 10.0.0.2:7000 was lost: its event stream ended before the job did',
  workerId: 'w-1',
  rank: 1,
  epoch: 1,
  action: 'went on from step 25 with 1 of 2 workers: w-0 (kept its state)',
  failedAtStep: 27,
  resumedFromStep: 25,
  phases: {
    lastProgress: 1_000,
    detected: 1_250,
    fenced: 1_300,
    rescheduled: 1_350,
    restored: 1_500,
    firstStep: 2_000,
  },
  log: ['first', 'last'],
};
const status: RunStatus = {
  runId: 'r',
  name: 'r',
  state: 'running',
  numericsClass: null,
  fleet: { min: 1, max: 2, spares: 1 },
  stages: [{ name: 'align_tasks', state: 'running', jobs: [job] }],
  incidents: [],
  seconds: {},
  failure: null,
  result: null,
};

test('goodput comes first, then what the rest went to, the largest first', () => {
  expect(describeGoodput({ queue: 1, work: 90, 'recovery:worker_lost': 7, paused: 0, start: 2 })).toBe(
    '90.0 % of 1 min 40 s; recovery:worker_lost 7.0 s, start 2.0 s, queue 1.0 s',
  );
  expect(describeGoodput({ work: 5 })).toBe('100.0 % of 5.0 s');
  expect(describeGoodput({ queue: 5 })).toBe('0.0 % of 5.0 s; queue 5.0 s');
  expect(describeStatus(status)).not.toContain('goodput');
});

test('gang sizes', () => {
  expect(describeFleet({ fleet: { min: 1, max: 1, spares: 0 } })).toBe('1 worker');
  expect(describeFleet(status)).toBe('1 to 2 workers, 1 left free as spares');
});

test('a job that stands still says why', () => {
  const stages = [{ ...status.stages[0], jobs: [{ ...job, blocked: 'the disk is full' }] }] as RunStatus['stages'];
  const text = describeStatus({ ...status, stages });
  expect(text).toMatch(/^ {2}tune +blocked +30\/60 +20 +2 +w-0$/m);
  expect(text).toContain('blocked:\n  tune: the disk is full');
  expect(describeStatus(status)).not.toContain('blocked');
});

test('a run that waits for approval says what to do', () => {
  const text = describeStatus({ ...status, state: 'waiting_for_approval' });
  expect(text).toContain('state     waiting_for_approval\n          publishing waits for "collimate approve r"');
});

test('an incident is one line in the status', () => {
  expect(describeStatus({ ...status, incidents: [incident] })).toContain(
    '\n  tune#1: worker_lost on w-1 (rank 1) at step 27: went on from step 25 with 1 of 2 workers: w-0 (kept its state); ' +
      '1.00 s from the last progress to the next step',
  );
  const phases = { ...incident.phases, firstStep: null };
  expect(describeStatus({ ...status, incidents: [{ ...incident, action: '', phases }] })).toMatch(
    /step 27: recovering$/,
  );
});

test('an incident at length: what was seen and done, phases, the last lines of the worker', () => {
  expect(describeIncidents([])).toBe('no incidents');
  const lines = describeIncidents([incident]).split('\n');
  expect(lines).toContain('worker    w-1, rank 1');
  expect(lines).toContain(`seen      ${incident.message}`);
  expect(lines).toContain('steps     failed at 27, went on from 25: 2 computed again');
  expect(lines).toContain('detect        0.250  1970-01-01T00:00:01.250Z');
  expect(lines).toContain('first step    0.500  1970-01-01T00:00:02.000Z');
  expect(lines).toContain('all           1.000');
  expect(lines.slice(-3)).toEqual(['last lines of w-1:', '  first', '  last']);
  const unknown = describeIncidents([{ ...incident, workerId: null, rank: null, log: [] }]).split('\n');
  expect(unknown).toContain('worker    unknown');
  expect(unknown.at(-1)).toMatch(/^all/);
});
