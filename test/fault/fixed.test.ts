/**
 * A few runs under faults with fixed seeds; `npm run chaos` is the large one. Each run is hit as the name says, and must end
 * with the digest of an undisturbed run, a whole store, no lease and no stray process.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { TrialFleet } from './fleet.js';
import { scheduleMissing } from './trial.js';
import { FIXED_SCHEDULES } from './fixed-schedules.js';

/** Others share the machine of a test; a hang stays one. */
const DEADLINE_MS = 120_000;

describe('runs under faults', () => {
  const fleet = new TrialFleet(DEADLINE_MS);
  beforeAll(async () => void (await fleet.expectedDigest()), 240_000);
  afterAll(() => fleet.close());

  for (const [name, schedule] of Object.entries(FIXED_SCHEDULES)) {
    const missing = scheduleMissing(schedule);
    it.skipIf(missing !== null)(missing === null ? name : `${name} (skipped: ${missing})`, async () => {
      const row = await fleet.trial(schedule);
      expect(row.faults.map(({ hit }) => hit)).not.toContain(null);
      expect({ outcome: row.outcome, trouble: row.trouble }, row.evidence).toEqual({
        outcome: 'identical',
        trouble: [],
      });
    });
  }
});
