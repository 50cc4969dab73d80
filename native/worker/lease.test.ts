import { describe, expect, it } from 'vitest';

import { Lease } from './lease.js';

const a1 = { jobId: 'a', epoch: 1 };
const a2 = { jobId: 'a', epoch: 2 };
const b1 = { jobId: 'b', epoch: 1 };

describe('Lease', () => {
  it('is granted once, and again to the same attempt', () => {
    const lease = new Lease();
    expect(lease.reserve(a1, 1000)).toEqual({ type: 'granted' });
    expect(lease.reserve(a1, 1000)).toEqual({ type: 'granted' });
    expect(lease.holder).toEqual(a1);
  });

  it('is refused to another job while held', () => {
    const lease = new Lease();
    lease.reserve(a1, 1000);
    expect(lease.reserve(b1, 1000)).toEqual({ type: 'busy', holder: a1 });
    lease.release(a1);
    expect(lease.reserve(b1, 1000)).toEqual({ type: 'granted' });
  });

  it('names the older attempt that has to go first', () => {
    const lease = new Lease();
    lease.reserve(a1, 1000);
    expect(lease.reserve(a2, 1000)).toEqual({ type: 'superseded', holder: a1 });
  });

  it('refuses an epoch below the highest seen, even when free', () => {
    const lease = new Lease();
    lease.reserve(a2, 1000);
    lease.release(a2);
    expect(lease.reserve(a1, 1000)).toEqual({ type: 'stale', currentEpoch: 2 });
    expect(lease.start(a1)).toBe(false);
  });

  it('lapses when nothing is started under it, and not afterwards', () => {
    let now = 0;
    const lease = new Lease(() => now);
    lease.reserve(a1, 1000);
    now = 999;
    expect(lease.holder).toEqual(a1);
    now = 1000;
    expect(lease.holder).toBeNull();
    expect(lease.start(a1)).toBe(false);
    lease.reserve(a1, 1000);
    expect(lease.start(a1)).toBe(true);
    now = 1e9;
    expect(lease.holder).toEqual(a1);
  });

  it('is not released by an attempt that does not hold it', () => {
    const lease = new Lease();
    lease.reserve(a2, 1000);
    lease.release(a1);
    expect(lease.holder).toEqual(a2);
  });
});
