/**
 * Does one fault to a cluster, now, and undoes what has to be undone.
 *
 * Answers what was hit, in words for the report; `over` settles once the fault has passed. Only signals, files, limits and
 * cables are used: nothing that the program could know of.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import { diskMissing } from './store-disk.js';
import { networkMissing } from '../support/network.js';
import { clocksMissing, hasEnded, WORKER_IDS, type FaultCluster, type Features } from './fault-cluster.js';
import type { Fault, Schedule } from './schedule.js';

const COMMAND_TIMEOUT_MS = 10_000;
/** As `collimate up`: a worker that was asked to leave and does not is killed. */
const PREEMPT_GRACE_MS = 12_000;
export interface Injected {
  hit: string;
  /** Resolves when the fault has passed; restarts of the supervisor may still be under way. */
  over: Promise<void>;
}

export function featuresOf({ faults }: Schedule): Features {
  return {
    network: faults.some(({ kind }) => kind === 'partition' || kind === 'loss'),
    clocks: faults.some(({ kind }) => kind === 'clock'),
  };
}

const missing = new Map<string, string | null>();

/** Why this machine cannot do the fault; null when it can. */
export function faultMissing({ kind }: Fault): string | null {
  const ask = (name: string, check: () => string | null): string | null => {
    if (!missing.has(name)) missing.set(name, check());
    return missing.get(name) ?? null;
  };
  if (kind === 'partition' || kind === 'loss') return ask('network', networkMissing);
  if (kind === 'clock') return ask('clocks', clocksMissing);
  if (kind === 'full_disk') return ask('disk', diskMissing);
  if (kind === 'oom') return ask('prlimit', prlimitMissing);
  return null;
}

export async function inject(fault: Fault, cluster: FaultCluster): Promise<Injected> {
  if (fault.kind === 'full_disk') return fillDisk(fault, cluster);
  if (fault.kind === 'flip' || fault.kind === 'truncate') return await damageStore(fault, fault.kind, cluster);
  const name = await processOf(fault, cluster);
  const { holdMs, restartAfterMs } = fault;
  const afterHold = (undo: () => void | Promise<void>): Promise<void> => sleep(holdMs).then(undo);
  switch (fault.kind) {
    case 'kill':
      cluster.end(name, 'SIGKILL', restartAfterMs);
      return { hit: name, over: Promise.resolve() };
    case 'preempt':
      return { hit: name, over: preempt(fault, name, cluster) };
    case 'freeze': {
      const { process: frozen } = cluster.child(name);
      frozen.kill('SIGSTOP');
      return { hit: name, over: afterHold(() => void frozen.kill('SIGCONT')) };
    }
    case 'oom':
      return { hit: name, over: squeeze(fault, name, cluster) };
    case 'partition':
      await cluster.network?.setLink(name, 'down');
      return { hit: name, over: afterHold(() => cluster.network?.setLink(name, 'up')) };
    case 'loss': {
      const clear = { delayMs: 0, loss: 0, seed: 0 };
      cluster.network?.shape(name, { ...clear, loss: fault.lossRate, seed: Math.floor(fault.pick * 1e9) });
      return { hit: name, over: afterHold(() => cluster.network?.shape(name, clear)) };
    }
    case 'clock':
      await cluster.jumpClock(name, fault.jumpSeconds);
      return { hit: name, over: afterHold(() => cluster.jumpClock(name, 0)) };
  }
}

/** The worker that `pick` chooses: by its lease, as the fleet sees it; any when none has (or lacks) one. */
async function processOf({ target, pick }: Fault, cluster: FaultCluster): Promise<string> {
  if (target === 'controller' || target === 'temporal') return target;
  const up = WORKER_IDS.filter((id) => !hasEnded(cluster.child(id)));
  let busy: string[] = [];
  try {
    busy = await cluster.cluster.busyWorkers();
  } catch {
    // The controller is down: whom it would have named is unknown.
  }
  const wanted = up.filter((id) => busy.includes(id) === (target === 'gang'));
  const candidates = wanted.length > 0 ? wanted : up;
  const name = candidates[Math.floor(pick * candidates.length)];
  if (name === undefined) throw new Error('expected a worker that is up, found none');
  return name;
}

function fillDisk({ holdMs }: Fault, { disk }: FaultCluster): Injected {
  disk.fill();
  return { hit: 'store disk', over: sleep(holdMs).then(() => disk.free()) };
}

async function damageStore(fault: Fault, how: 'flip' | 'truncate', cluster: FaultCluster): Promise<Injected> {
  const name = await processOf({ ...fault, target: 'gang' }, cluster);
  const { disk } = cluster;
  // Before the first checkpoint there is none to damage; there is always the output of an earlier job.
  const path =
    (await disk.damage(fault.piece, how, fault.pick)) ??
    (await disk.damage('job_output', how, fault.pick)) ??
    'nothing';
  cluster.end(name, 'SIGKILL', fault.restartAfterMs);
  return { hit: `${shortened(path)} and ${name}`, over: Promise.resolve() };
}

async function preempt({ restartAfterMs }: Fault, name: string, cluster: FaultCluster): Promise<void> {
  const child = cluster.child(name);
  cluster.end(name, 'SIGTERM', restartAfterMs);
  const grace = new AbortController();
  const left = child.exited.then(() => true);
  const late = sleep(PREEMPT_GRACE_MS, false, { signal: grace.signal }).catch(() => false);
  if (await Promise.race([left, late])) {
    grace.abort();
    return;
  }
  cluster.unexpectedExits.push(`${name} did not leave within ${String(PREEMPT_GRACE_MS / 1000)} s of SIGTERM`);
  await child.kill();
}

/** Leaves the process the memory that it holds and not a page more, for a while. */
async function squeeze({ holdMs, restartAfterMs }: Fault, name: string, cluster: FaultCluster): Promise<void> {
  const child = cluster.child(name);
  const pid = String(child.process.pid);
  cluster.mayEnd(name, restartAfterMs);
  const heldBytes = Number(/VmSize:\s*(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) * 1024;
  prlimit(['--pid', pid, `--as=${String(heldBytes)}:unlimited`]);
  await Promise.race([sleep(holdMs), child.exited]);
  if (!hasEnded(child)) prlimit(['--pid', pid, '--as=unlimited:unlimited']);
}

function prlimitMissing(): string | null {
  try {
    prlimit(['--version']);
    return null;
  } catch {
    return 'prlimit (util-linux) is not installed';
  }
}

function prlimit(args: string[]): void {
  execFileSync('prlimit', args, { stdio: 'pipe', timeout: COMMAND_TIMEOUT_MS });
}

function shortened(path: string): string {
  return path.replace(/([0-9a-f]{8})[0-9a-f]{56}/g, '$1');
}
