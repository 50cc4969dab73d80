import { describe, expect, it } from 'vitest';

import { EventLog, type SequencedEvent } from './event-log.js';

const step = (n: number) => ({ step: { step: n, stepsTotal: 10_000, metrics: {} } });

describe('EventLog', () => {
  it('replays what came after a sequence, then follows', () => {
    const log = new EventLog();
    log.append(step(1));
    log.append(step(2));
    const seen: number[] = [];
    const unfollow = log.follow(1, (event) => seen.push(event.sequence));
    log.append(step(3));
    unfollow();
    log.append(step(4));
    expect(seen).toEqual([2, 3]);
  });

  it('takes nothing after a terminal event', () => {
    const log = new EventLog();
    log.append({ finished: { resultJson: '{}' } });
    log.append({ failed: { message: 'late' } });
    const seen: SequencedEvent[] = [];
    log.follow(0, (event) => seen.push(event));
    expect(seen).toEqual([{ finished: { resultJson: '{}' }, sequence: 1 }]);
    expect(log.ended).toBe(true);
  });

  it('drops the oldest steps beyond its cap and never anything else', () => {
    const log = new EventLog();
    log.append({ checkpoint: { step: 0, manifestDigest: 'first' } });
    for (let n = 1; n <= 5000; n += 1) log.append(step(n));
    const seen: SequencedEvent[] = [];
    log.follow(0, (event) => seen.push(event));
    expect(seen[0]?.checkpoint?.manifestDigest).toBe('first');
    expect(seen.length).toBeLessThanOrEqual(2001);
    expect(seen.at(-1)?.sequence).toBe(5001);
    const sequences = seen.map((event) => event.sequence);
    expect(sequences).toEqual([...sequences].sort((x, y) => x - y));
  });
});
