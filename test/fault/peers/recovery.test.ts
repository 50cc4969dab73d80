/** The figures of a fault, read from traces whose figures are known. */
import { describe, expect, test } from 'vitest';

import { recoveryOf, spreadOf, type Trace } from './recovery.js';

const step = (attempt: number, at: number, timeMs: number) => ({ attempt, step: at, timeMs });

/** Faulted at 1,500 ms behind step 5; the next attempt starts from a checkpoint of step 3. */
const FAULTED: Trace = {
  startedMs: 0,
  steps: [step(7, 4, 1_000), step(7, 5, 1_400), step(8, 4, 3_000), step(8, 5, 3_100), step(8, 6, 3_200)],
  faultMs: 1_500,
  signs: [
    { by: 'launcher', timeMs: 1_900 },
    { by: 'survivor', timeMs: 1_700 },
    { by: 'launcher', timeMs: 1_200 },
  ],
  finishedMs: 4_000,
  digest: 'd',
};

describe('recoveryOf', () => {
  test('a fault: the earliest sign after it, the first step, the first new one, and what was done twice', () => {
    expect(recoveryOf(FAULTED)).toEqual({
      detectionMs: 200,
      detectedBy: 'survivor',
      firstStepMs: 1_500,
      newGroundMs: 1_700,
      stepsRepeated: 2,
      trainingMs: 3_000,
      wallMs: 4_000,
      digest: 'd',
    });
  });

  test('a step of the attempt that was under way is not a step after the fault', () => {
    const steps = [...FAULTED.steps.slice(0, 2), step(7, 6, 1_600), step(8, 7, 3_000)];
    expect(recoveryOf({ ...FAULTED, steps })).toMatchObject({
      firstStepMs: 1_500,
      newGroundMs: 1_500,
      stepsRepeated: 0,
    });
  });

  test('nothing after the fault: no figures, not zeros', () => {
    const trace = { ...FAULTED, steps: FAULTED.steps.slice(0, 2), signs: [], finishedMs: null, digest: null };
    expect(Object.values(recoveryOf(trace)).every((value) => value === null)).toBe(true);
  });
});

test('a spread leaves out what is missing', () => {
  expect(spreadOf([3, null, 1, 2, 10])).toEqual({ median: 2.5, min: 1, max: 10, count: 4 });
  expect(spreadOf([null])).toBe(null);
});
