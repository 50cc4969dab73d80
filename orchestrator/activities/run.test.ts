import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import type { Incident } from '../../workflows/contract.js';
import { openStore, type ArtifactStore } from '../artifacts/store.js';
import { FleetRegistry } from '../fleet/registry.js';
import { RunEvents } from '../fleet/run-events.js';
import { RunMetrics } from '../fleet/run-metrics.js';
import { WorkerClients } from '../fleet/worker-clients.js';
import { createLogger } from '../telemetry/logger.js';
import { Metrics } from '../telemetry/metrics.js';
import { createTraces } from '../telemetry/traces.js';
import { runActivities } from './run.js';

describe('the journal of a run', () => {
  let folder = '';
  let store: ArtifactStore;
  let events: RunEvents;
  let activities: ReturnType<typeof runActivities>;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'collimate-run-activities-'));
    store = openStore(folder);
    const metrics = new Metrics({ exporter: 'controller', version: '0' });
    events = new RunEvents({
      store,
      metrics: new RunMetrics(metrics),
      log: createLogger({ component: 'test', file: join(folder, 'log') }),
    });
    activities = runActivities({
      store,
      fleet: new FleetRegistry(),
      workers: new WorkerClients(),
      events,
      metrics,
      traces: createTraces({ component: 'test', version: '0', instance: 't' }, {}),
      rendezvousAddress: () => '',
      servingDir: join(folder, 'serving'),
    });
  });
  afterEach(async () => {
    await events.flush();
    rmSync(folder, { recursive: true });
  });

  const read = async (name: string): Promise<unknown> =>
    JSON.parse((await store.readRunFile('r', name))?.toString() ?? 'null') as unknown;

  it('keeps the last word about an incident, whichever comes last', async () => {
    const opened: Incident = { ...INCIDENT, action: '' };
    await activities.recordIncident('r', opened, 'opened');
    expect(await read('incident-tune.1.json')).toEqual(opened);
    await activities.recordIncident('r', INCIDENT, 'closed');
    await activities.recordIncident('r', opened, 'opened');
    expect(await read('incident-tune.1.json')).toEqual(INCIDENT);
  });

  it('keeps the larger sum of seconds, and replaces a damaged one', async () => {
    await activities.recordSeconds('r', { work: 5, queue: 1 });
    await activities.recordSeconds('r', { work: 4 });
    expect(await read('seconds.json')).toEqual({ work: 5, queue: 1 });
    await activities.recordSeconds('r', { work: 4, 'recovery:worker_lost': 3 });
    expect(await read('seconds.json')).toEqual({ work: 4, 'recovery:worker_lost': 3 });
    await store.writeRunFile('r', 'seconds.json', '{"wo');
    await activities.recordSeconds('r', { work: 1 });
    expect(await read('seconds.json')).toEqual({ work: 1 });
  });

  it('says why a run failed before it says that it did', async () => {
    await activities.recordRunState('r', null, 'failed', 'the reason');
    await events.flush();
    const messages = (await store.readRunEvents('r')).map(({ message }) => message);
    expect(messages).toEqual(['the run fails: the reason', 'run failed']);
  });
});

const INCIDENT: Incident = {
  id: 'tune#1',
  stage: 'align_tasks',
  job: 'tune',
  jobKind: 'tune',
  cause: 'worker_lost',
  message: 'gone',
  workerId: 'w-0',
  rank: 0,
  epoch: 1,
  action: 'went on',
  failedAtStep: 3,
  resumedFromStep: 3,
  phases: { lastProgress: 1, detected: 2, fenced: 3, rescheduled: 4, restored: 5, firstStep: 6 },
  log: [],
};
