/** The parts of a timeline add up to the wall clock, whatever happens. */
import { describe, expect, it } from 'vitest';

import { addSeconds, advanced, recoveryPhases, Timeline, totalSeconds } from './timeline.js';

describe('timeline', () => {
  it('gives every moment to one purpose', () => {
    const timeline = new Timeline({}, 0);
    timeline.set('tune', 'queue', 1_000);
    timeline.set('tune', 'start', 3_000);
    timeline.set('tune', 'work', 4_000);
    timeline.set('tune', 'recovery:worker_lost', 10_000);
    timeline.set('tune', 'work', 12_000);
    timeline.set('tune', null, 20_000);
    const seconds = timeline.seconds(21_000);
    expect(seconds).toEqual({ orchestration: 2, queue: 2, start: 1, work: 14, 'recovery:worker_lost': 2 });
    expect(totalSeconds(seconds)).toBe(21);
  });

  it('counts work of one job before what jobs beside it wait for', () => {
    const timeline = new Timeline({}, 0);
    timeline.set('rank/0', 'work', 0);
    timeline.set('rank/1', 'queue', 0);
    timeline.set('rank/0', null, 5_000);
    expect(timeline.seconds(6_000)).toEqual({ work: 5, queue: 1 });
  });

  it('moves lost work without changing the sum, and never more than there was', () => {
    const timeline = new Timeline({ work: 3 }, 0);
    timeline.lose(2, 'repeated:worker_lost');
    timeline.lose(9, 'recovery:worker_lost');
    timeline.lose(-4, 'recovery:worker_lost');
    expect(timeline.seconds(0)).toEqual({ work: 0, 'repeated:worker_lost': 2, 'recovery:worker_lost': 1 });
  });

  it('answers the time up to now without taking it', () => {
    const timeline = new Timeline({}, 0);
    timeline.set('tune', 'work', 0);
    expect(timeline.seconds(4_000)).toEqual({ work: 4 });
    timeline.set('tune', 'queue', 3_000);
    expect(timeline.seconds(4_000)).toEqual({ work: 3, queue: 1 });
    timeline.pause(5_000);
    expect(timeline.seconds(9_000)).toEqual({ work: 3, queue: 2 });
  });

  it('goes on from a snapshot at the purpose that it was at', () => {
    const timeline = new Timeline({}, 0);
    timeline.set('tune', 'work', 1_000);
    const snapshot = timeline.snapshot({ work: 10, queue: 2 }, 3_000);
    expect(advanced(snapshot, 3_000)).toEqual({ work: 12, queue: 2, orchestration: 1 });
    expect(advanced(snapshot, 8_000)).toEqual({ work: 17, queue: 2, orchestration: 1 });
    expect(advanced(snapshot, 2_000)).toEqual(advanced(snapshot, 3_000));
  });

  it('ignores a clock that goes back', () => {
    const timeline = new Timeline({}, 10_000);
    timeline.set('tune', 'work', 9_000);
    expect(totalSeconds(timeline.seconds(12_000))).toBe(2);
  });

  it('adds up', () => {
    expect(addSeconds({ work: 1, queue: 2 }, { work: 3, paused: 4 })).toEqual({ work: 4, queue: 2, paused: 4 });
  });
});

describe('phases of a recovery', () => {
  const phases = {
    lastProgress: 1_000,
    detected: 1_500,
    fenced: 1_600,
    rescheduled: 1_900,
    restored: null,
    firstStep: 4_000,
  };

  it('begin where the ones before end, also past one that nobody saw', () => {
    expect(recoveryPhases(phases).map(({ phase, seconds }) => [phase, seconds])).toEqual([
      ['detect', 0.5],
      ['fence', 0.1],
      ['reschedule', 0.3],
      ['restore', null],
      ['first_step', 2.1],
    ]);
  });

  it('have no first length when no progress came before', () => {
    const [detect, fence] = recoveryPhases({ ...phases, lastProgress: null });
    expect(detect?.seconds).toBeNull();
    expect(fence?.seconds).toBe(0.1);
  });
});
