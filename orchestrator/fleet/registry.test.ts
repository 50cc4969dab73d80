import { describe, expect, it, vi } from 'vitest';

import { FleetRegistry, type WorkerIdentity } from './registry.js';

const identity = (workerId: string, changes: Partial<WorkerIdentity> = {}): WorkerIdentity => ({
  workerId,
  address: `127.0.0.1:${workerId.length.toString()}`,
  metricsAddress: '127.0.0.1:2',
  numericsClass: 'cpu-avx2-0',
  engineRevision: 'r1',
  pid: 1,
  ...changes,
});
const ids = (members: { workerId: string }[]) => members.map(({ workerId }) => workerId);
const lease = { jobId: 'run/tune', epoch: 1 };

describe('FleetRegistry', () => {
  it('lists members in worker-id order, whatever order they joined in', () => {
    const fleet = new FleetRegistry();
    for (const id of ['w-2', 'w-0', 'w-1']) fleet.join(identity(id));
    expect(ids(fleet.list())).toEqual(['w-0', 'w-1', 'w-2']);
  });

  it('matches class and revision; domain jobs run on every class of the revision', () => {
    const fleet = new FleetRegistry();
    fleet.join(identity('w-0'));
    fleet.join(identity('w-1', { numericsClass: 'cpu-avx512-0' }));
    fleet.join(identity('w-2', { engineRevision: 'r2' }));
    expect(ids(fleet.compatible({ numericsClass: 'cpu-avx512-0', engineRevision: 'r1' }))).toEqual(['w-1']);
    expect(ids(fleet.compatible({ numericsClass: 'js', engineRevision: 'r1' }))).toEqual(['w-0', 'w-1']);
  });

  it('replaces a member that joins again, and then ignores the end of its old stream', () => {
    const fleet = new FleetRegistry();
    const lost = vi.fn();
    fleet.on('lost', lost);
    const old = fleet.join(identity('w-0', { address: '127.0.0.1:10' }));
    const young = fleet.join(identity('w-0', { address: '127.0.0.1:11' }));
    expect(lost.mock.calls).toEqual([[old]]);
    fleet.leave(old);
    expect(fleet.get('w-0')).toBe(young);
    expect(lost).toHaveBeenCalledOnce();
    fleet.leave(young);
    expect(fleet.list()).toEqual([]);
  });

  it('takes the lease from beats and tells of a change only when there is one', () => {
    const fleet = new FleetRegistry();
    const member = fleet.join(identity('w-0'));
    const changed = vi.fn();
    fleet.on('changed', changed);
    const at = { progress: null, draining: false, cordoned: false };
    fleet.beat(member, { lease, ...at });
    fleet.beat(member, { lease: { ...lease }, ...at });
    expect(changed).toHaveBeenCalledTimes(1);
    fleet.beat(member, { lease: { ...lease, epoch: 2 }, ...at });
    fleet.beat(member, { lease: null, ...at });
    expect(changed).toHaveBeenCalledTimes(3);
    expect(fleet.get('w-0')?.lease).toBeNull();
  });

  it('offers a worker that was told to end no more work', () => {
    const fleet = new FleetRegistry();
    const member = fleet.join(identity('w-0'));
    const requirements = { numericsClass: 'js', engineRevision: 'r1' };
    expect(ids(fleet.compatible(requirements))).toEqual(['w-0']);
    const changed = vi.fn();
    fleet.on('changed', changed);
    fleet.beat(member, { lease: null, progress: null, draining: true, cordoned: false });
    expect(fleet.compatible(requirements)).toEqual([]);
    expect(changed).toHaveBeenCalledOnce();
  });

  it('keeps the last log lines of a worker that is gone', () => {
    const fleet = new FleetRegistry();
    const member = fleet.join(identity('w-0'));
    for (let line = 1; line <= 100; line++) fleet.addLog('w-0', [`line ${String(line)}`]);
    fleet.leave(member);
    expect(fleet.lastLog('w-0')).toHaveLength(40);
    expect(fleet.lastLog('w-0').at(-1)).toBe('line 100');
    expect(fleet.lastLog('w-9')).toEqual([]);
  });

  it('wakes those who wait for a change, or after their time, and keeps no listener of them', async () => {
    const fleet = new FleetRegistry();
    const warnings = vi.spyOn(process, 'emitWarning');
    const waiting = Array.from({ length: 20 }, () => fleet.changed(60_000));
    fleet.join(identity('w-0'));
    await Promise.all(waiting);
    await fleet.changed(1);
    expect(fleet.listenerCount('changed')).toBe(0);
    expect(warnings).not.toHaveBeenCalled();
  });
});
