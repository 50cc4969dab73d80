/** A frozen worker is told from a busy one, at the pace of its own gang. */
import { describe, expect, it } from 'vitest';

import { CHECK_INTERVAL_MS, HangDetector, type MemberSigns, type Suspicion } from './hang-detector.js';

const STEP_MS = 200;

function member(rank: number, changes: Partial<MemberSigns> = {}): MemberSigns {
  return { workerId: `w-${String(rank)}`, rank, lastHeardMs: 0, phase: 'computing', waitingForRank: -1, ...changes };
}

/** A gang at a steady pace until `steps` are done. */
function atPace(steps: number, stallSeconds = 600): { detector: HangDetector; nowMs: number } {
  const detector = new HangDetector({ stallSeconds, nowMs: 0 });
  detector.progressed(0, { isStep: false });
  let nowMs = 0;
  for (let step = 0; step < steps; step++) {
    nowMs += STEP_MS;
    detector.check(nowMs, []);
    detector.progressed(nowMs, { isStep: true });
  }
  return { detector, nowMs };
}

/** Checks at the usual interval until a suspicion comes or `untilMs` is reached. */
function watch(
  detector: HangDetector,
  { fromMs, untilMs, signs }: { fromMs: number; untilMs: number; signs: (nowMs: number) => MemberSigns[] },
): { atMs: number; suspicion: Suspicion } | null {
  for (let nowMs = fromMs; nowMs <= untilMs; nowMs += CHECK_INTERVAL_MS) {
    const suspicion = detector.check(nowMs, signs(nowMs));
    if (suspicion !== null) return { atMs: nowMs, suspicion };
  }
  return null;
}

describe('hang detector', () => {
  it('misses a silent worker within three of its steps and a second', () => {
    const { detector, nowMs } = atPace(10);
    const found = watch(detector, {
      fromMs: nowMs,
      untilMs: nowMs + 60_000,
      signs: (at) => [
        member(0, { lastHeardMs: at, phase: 'reducing', waitingForRank: 1 }),
        member(1, { lastHeardMs: nowMs }),
      ],
    });
    expect(found?.suspicion.rank).toBe(1);
    expect(found?.suspicion.message).toContain('w-1');
    expect((found?.atMs ?? Infinity) - nowMs).toBeLessThan(3 * STEP_MS + 1_000);
  });

  it('leaves a silent worker alone as long as its gang takes steps', () => {
    const { detector, nowMs } = atPace(10);
    let at = nowMs;
    for (let step = 0; step < 50; step++) {
      at += STEP_MS;
      expect(detector.check(at, [member(0, { lastHeardMs: nowMs })])).toBeNull();
      detector.progressed(at, { isStep: true });
    }
  });

  it('gives a slow gang its own time', () => {
    const detector = new HangDetector({ stallSeconds: 600, nowMs: 0 });
    for (const at of [0, 10_000, 20_000, 30_000]) {
      for (let tick = at - 9_900; tick < at; tick += CHECK_INTERVAL_MS) detector.check(tick, []);
      detector.progressed(at, { isStep: true });
    }
    const found = watch(detector, {
      fromMs: 30_000,
      untilMs: 90_000,
      signs: () => [member(0, { lastHeardMs: 30_000 })],
    });
    expect(found?.atMs).toBeGreaterThan(30_000 + 3 * 10_000);
    expect(found?.atMs).toBeLessThan(30_000 + 3 * 10_000 + 1_000);
  });

  it('blames nobody for the time in which this process itself was held up', () => {
    const { detector, nowMs } = atPace(10);
    const late = nowMs + 20_000;
    expect(detector.check(late, [member(0, { lastHeardMs: nowMs })])).toBeNull();
    // Heard again at once: all is well.
    expect(
      watch(detector, { fromMs: late, untilMs: late + 2_000, signs: (at) => [member(0, { lastHeardMs: at })] }),
    ).toBeNull();
  });

  it('finds the one that all others wait for when a gang that answers takes no step', () => {
    const { detector, nowMs } = atPace(10);
    const found = watch(detector, {
      fromMs: nowMs,
      untilMs: nowMs + 120_000,
      signs: (at) => [
        member(0, { lastHeardMs: at, phase: 'reducing', waitingForRank: 2 }),
        member(1, { lastHeardMs: at, phase: 'reducing', waitingForRank: 2 }),
        member(2, { lastHeardMs: at, phase: 'computing' }),
      ],
    });
    expect(found?.suspicion.rank).toBe(2);
    // Many times its step, yet far from ten minutes.
    expect((found?.atMs ?? 0) - nowMs).toBeGreaterThan(20 * STEP_MS);
    expect((found?.atMs ?? Infinity) - nowMs).toBeLessThan(31_000);
  });

  it('leaves a gang alone whose first rank writes the result', () => {
    const { detector, nowMs } = atPace(10, 5);
    const signs = (at: number) => [
      member(0, { lastHeardMs: at, phase: 'finishing' }),
      member(1, { lastHeardMs: at, phase: 'reducing', waitingForRank: 0 }),
    ];
    expect(watch(detector, { fromMs: nowMs, untilMs: nowMs + 600_000, signs })).toBeNull();
  });

  it('does not judge jobs that take no steps, nor workers without a stream', () => {
    const { detector, nowMs } = atPace(0, 5);
    const signs = (at: number) => [
      member(0, { lastHeardMs: at, phase: null }),
      member(1, { lastHeardMs: null, phase: null }),
    ];
    expect(watch(detector, { fromMs: nowMs, untilMs: nowMs + 60_000, signs })).toBeNull();
  });
});
