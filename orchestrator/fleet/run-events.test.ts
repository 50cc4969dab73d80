import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { FileArtifactStore } from '../artifacts/store.js';
import { createLogger } from '../telemetry/logger.js';
import { Metrics } from '../telemetry/metrics.js';
import { RunEvents, type RunEntry } from './run-events.js';
import { RunMetrics } from './run-metrics.js';

let folder = '';
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'collimate-events-'));
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

const store = () => new FileArtifactStore(join(folder, 'store'));
/** A controller's events as they are after its start. */
const controller = () =>
  new RunEvents({
    store: store(),
    metrics: new RunMetrics(new Metrics({ exporter: 'controller', version: '0' })),
    log: createLogger({ component: 'test', file: join(folder, 'log') }),
  });
const scope = { runId: 'r', stage: 'embed', jobId: 'r/codebooks' } as const;
const told = (events: RunEvents, sequence: number, body: object, epoch = 1): void => {
  events.jobEvent(
    scope,
    { workerId: 'w-0' },
    {
      jobId: scope.jobId,
      epoch,
      rank: 0,
      sequence,
      ...body,
    },
  );
};
const checkpoint = (step: number) => ({ checkpoint: { step, manifestDigest: 'm', bytes: 1, seconds: 1 } });

describe('RunEvents', () => {
  it('writes an event once, though a restarted controller hears it again', async () => {
    const first = controller();
    for (const step of [1, 2]) told(first, step, checkpoint(step));
    await first.flush();
    const second = controller();
    for (const step of [1, 2, 3]) told(second, step, checkpoint(step));
    told(second, 1, checkpoint(3), 2);
    second.note(scope, 'back again');
    await second.flush();
    const lines = await store().readRunEvents('r');
    expect(lines.map(({ epoch, sequence, message }) => message ?? [epoch, sequence])).toEqual([
      [1, 1],
      [1, 2],
      [1, 3],
      [2, 1],
      'back again',
    ]);
  });

  it('tells followers, and goes on, when the metrics do not understand an event', async () => {
    const events = controller();
    const entries: RunEntry[] = [];
    events.follow('r', (entry) => entries.push(entry));
    told(events, 1, { finished: { resultJson: '{"summary":{}}' } });
    await events.flush();
    expect(entries).toHaveLength(1);
    expect(await store().readRunEvents('r')).toMatchObject([{ type: 'finished' }]);
  });
});
