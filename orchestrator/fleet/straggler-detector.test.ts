/** One rank that is slow all the time is found; noise, unequal shares and tiny steps are not. */
import { describe, expect, it } from 'vitest';

import { StragglerDetector } from './straggler-detector.js';

function fed(steps: number, secondsOf: (rank: number, step: number) => number, world = 3): StragglerDetector {
  const detector = new StragglerDetector(world);
  for (let step = 0; step < steps; step++) {
    for (let rank = 0; rank < world; rank++) detector.computed(rank, secondsOf(rank, step));
  }
  return detector;
}

describe('straggler detector', () => {
  it('names a rank that takes several times as long as the others', () => {
    expect(fed(40, (rank) => (rank === 1 ? 0.4 : 0.1)).find()).toMatchObject({ rank: 1 });
    expect(fed(40, (rank) => (rank === 0 ? 0.4 : 0.1), 2).find()).toMatchObject({ rank: 0 });
  });

  it('waits until it has seen enough', () => {
    expect(fed(10, (rank) => (rank === 1 ? 0.4 : 0.1)).find()).toBeNull();
  });

  it('lets single slow steps, unequal shares of the lanes and tiny steps pass', () => {
    expect(fed(40, (rank, step) => (rank === 1 && step % 5 === 0 ? 2 : 0.1)).find()).toBeNull();
    expect(fed(40, (rank) => (rank === 0 ? 0.2 : 0.1)).find()).toBeNull();
    expect(fed(40, (rank) => (rank === 0 ? 0.008 : 0.001)).find()).toBeNull();
  });

  it('does not compare a rank with itself', () => {
    expect(fed(40, () => 5, 1).find()).toBeNull();
  });

  it('forgets: a rank that is fast again is left alone', () => {
    expect(fed(80, (rank, step) => (rank === 1 && step < 40 ? 0.4 : 0.1)).find()).toBeNull();
  });
});
