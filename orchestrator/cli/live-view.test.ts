/** What `watch` and `top` show, as text. */
import { describe, expect, it } from 'vitest';

import { type WatchRunResponse__Output } from '../../proto/generated/collimate/v1/WatchRunResponse.js';
import { type RunStatus } from '../../workflows/contract.js';
import { bar, cut, LiveView, sparkline } from './live-view.js';
import { drawing } from './screen.js';

const RUN = 'demo-20261125-101500-ab12';
const step = (at: number, rank = 0, loss = 4 - at / 50): WatchRunResponse__Output =>
  ({
    ...{ runId: RUN, stage: 'align_tasks', workerId: `w-${rank}`, timeUnixSeconds: 0, entry: 'jobEvent' },
    jobEvent: {
      ...{ jobId: `${RUN}/tune`, epoch: 1, rank, sequence: at },
      step: { step: at, stepsTotal: 100, metrics: { loss } },
    },
  }) as unknown as WatchRunResponse__Output;
const event = (jobEvent: object): WatchRunResponse__Output =>
  ({ ...step(0), jobEvent: { jobId: `${RUN}/tune`, epoch: 1, rank: 0, ...jobEvent } }) as WatchRunResponse__Output;

const STATUS = {
  ...{ runId: RUN, state: 'running', seconds: { work: 90, queue: 10 } },
  stages: [
    { name: 'ingest', state: 'done', jobs: [] },
    { name: 'align_tasks', state: 'running', jobs: [] },
    { name: 'publish', state: 'waiting', jobs: [] },
  ],
  incidents: [],
} as unknown as RunStatus;

function viewOf(...steps: number[]): LiveView {
  const view = new LiveView(RUN, 0);
  view.status(STATUS);
  for (const at of steps) for (const rank of [0, 1]) view.event(step(at, rank), at * 100);
  return view;
}

describe('a run while it happens', () => {
  it('shows state, goodput, stages, pace, loss and ranks', () => {
    const view = viewOf(10, 20, 30, 40);
    expect(view.frame(4_000, 80)).toEqual([
      `${RUN}  running  goodput 90.0 %  watched 4.0 s`,
      '✓ ingest  ▶ align_tasks  · publish',
      '',
      'tune  [#########               ] 40/100  10.0 steps/s  6.0 s left',
      '  loss 3.200  █▆▃▁',
      '  rank 0  w-0  step 40',
      '  rank 1  w-1  step 40',
    ]);
  });

  it('tells a rank of which nothing comes, and forgets the ranks of a gang that is over', () => {
    const view = viewOf(10);
    view.event(step(20), 9_000);
    expect(view.frame(9_000, 80)).toContain('  rank 1  w-1  step 10  nothing for 8 s');
    view.event(event({ rank: 1, parked: { step: 10, reason: 'PARK_REASON_PEER_LOST' } }), 9_100);
    expect(view.frame(9_100, 80).join('\n')).not.toContain('rank 1');
  });

  it('shows the last incidents, the last note, and servers that are away; a job that is done is gone', () => {
    const view = viewOf(10);
    const incident = { id: 'tune#1', cause: 'worker_lost', workerId: 'w-1', failedAtStep: 27, action: '' };
    view.status({ ...STATUS, incidents: [incident] } as unknown as RunStatus);
    view.event({ ...step(0), entry: 'note', jobEvent: null, note: `worker w-1 lost of ${RUN}/tune` }, 0);
    view.contact(false);
    const text = view.frame(1_000, 80).join('\n');
    expect(text).toContain('incidents 1\n  tune#1: worker_lost of w-1 at step 27: recovering');
    expect(text).toContain('worker w-1 lost of tune');
    expect(text).toContain('the servers do not answer');
    view.event(event({ finished: {} }), 2_000);
    expect(view.frame(2_000, 80).join('\n')).not.toContain('10/100');
  });

  it('keeps to the columns that there are, and has something to say before anything is known', () => {
    const view = viewOf(...Array.from({ length: 90 }, (_, i) => i + 1));
    for (const columns of [30, 60, 80])
      for (const line of view.frame(9_000, columns)) expect([...line].length).toBeLessThanOrEqual(columns);
    expect(new LiveView(RUN, 0).frame(0, 80)[0]).toBe(`${RUN}  starting  watched 0.0 s`);
  });
});

describe('pieces', () => {
  it('a bar is empty, part and full', () => {
    expect([bar(0), bar(0.5), bar(1)].map((text) => text.match(/#/g)?.length ?? 0)).toEqual([0, 12, 24]);
  });

  it('a sparkline spans the values, is flat for equal ones, and marks what is no number', () => {
    expect(sparkline([0, 7], 8)).toBe('▁█');
    expect(sparkline([3, 3, 3], 8)).toBe('▁▁▁');
    expect(sparkline([1, NaN, 2], 8)).toBe('▁?█');
    expect([
      ...sparkline(
        Array.from({ length: 1_000 }, (_, i) => i),
        20,
      ),
    ]).toHaveLength(20);
  });

  it('a line that is too long ends with a mark', () => {
    expect([cut('abcdef', 6), cut('abcdefg', 6)]).toEqual(['abcdef', 'abcde…']);
  });

  it('a frame is drawn over the last one, and clears what that had more', () => {
    expect(drawing(['a', 'b'], 0)).toBe('a\u001b[K\nb\u001b[K\n\u001b[J');
    expect(drawing(['c'], 2)).toBe('\u001b[2A\rc\u001b[K\n\u001b[J');
  });
});
