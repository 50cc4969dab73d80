/**
 * One run under its faults: submitted, hurt at the drawn moments, awaited, and then held against what must be true.
 *
 * 1. `identical`: the result has the digest of an undisturbed run. `lost`: the run ended without a result. `hung`: it did
 *    not end before the deadline; every log's tail and the run's status are then part of the row. `broken`: the harness
 *    itself could not do the trial.
 * 2. After the run: the store is whole, no worker holds a lease, no process is there that should not be.
 */
import { setTimeout as sleep } from 'node:timers/promises';

import { STATUS_QUERY, type RunPlan, type RunResult, type RunStatus } from '../../workflows/contract.js';
import type { FaultCluster } from './fault-cluster.js';
import { faultMissing, featuresOf, inject } from './injection.js';
import { isMoment, RunWatch, stepsRepeated, type RecoveryTimes } from './run-watch.js';
import { describeFault, describeMoment, TUNE_STEPS, type Fault, type Schedule } from './schedule.js';

const CALL_TIMEOUT_MS = 4_000;
const POLL_MS = 150;
const QUIET_TIMEOUT_MS = 20_000;
/** Every stage long enough to be hit, the whole 10 to 20 s on two quiet cores. */
const SETTINGS = [
  ...['data.simulate.items=2000', 'data.simulate.users=600', 'embed.dim=32', 'embed.epochs=20'],
  ...['codebooks.codes=512', 'codebooks.iterations=60', 'model.dim=64', 'model.ffnDim=128'],
  ...['tune.batchSequences=32', `tune.steps=${String(TUNE_STEPS)}`, 'rank.shardPrompts=200'],
];

export interface FaultRow extends RecoveryTimes {
  fault: string;
  moment: string;
  /** What was hit; null when the moment did not come before the run's end. */
  hit: string | null;
}

export interface TrialRow {
  seed: number;
  outcome: 'identical' | 'different' | 'lost' | 'hung' | 'skipped' | 'broken';
  faults: FaultRow[];
  stepsRepeated: number;
  incidents: string[];
  seconds: number;
  /** Broken promises besides the digest, and why a run was lost, hung or skipped. */
  trouble: string[];
  /** For people: status and log tails of a run that was lost or hung. */
  evidence: string;
}

export interface TrialOptions {
  schedule: Schedule;
  cluster: FaultCluster;
  expectedDigest: string | null;
  deadlineMs: number;
}

/** Why this machine cannot do the schedule; null when it can. */
export function scheduleMissing({ faults }: Schedule): string | null {
  return faults.map(faultMissing).find((reason) => reason !== null) ?? null;
}

/** A trial that was not done, or not to its end. */
export function emptyRow({ seed, faults }: Schedule, outcome: 'skipped' | 'broken', why: string): TrialRow {
  const rows = faults.map((fault) => faultRow(fault, null));
  return {
    seed,
    outcome,
    faults: rows,
    stepsRepeated: 0,
    incidents: [],
    seconds: 0,
    trouble: [why],
    evidence: '',
  };
}

/** The digest of a run that nothing disturbs. */
export async function undisturbedDigest(cluster: FaultCluster, deadlineMs: number): Promise<string> {
  const schedule: Schedule = {
    seed: 0,
    faults: [],
    gangMax: 3,
    checkpointIntervals: { dccf: 10, codebooks: 20, tune: 20 },
  };
  const end = await runUnder({ schedule, cluster, expectedDigest: null, deadlineMs });
  if (end.digest === null) throw new Error(`expected an undisturbed run to end, got: ${end.row.trouble.join('; ')}`);
  return end.digest;
}

export async function runTrial(options: TrialOptions): Promise<TrialRow> {
  return (await runUnder(options)).row;
}

async function runUnder({ schedule, cluster, expectedDigest, deadlineMs }: TrialOptions) {
  const wanted = featuresOf(schedule);
  if ((wanted.network && !cluster.features.network) || (wanted.clocks && !cluster.features.clocks)) {
    throw new Error('expected a cluster with the features that the schedule needs');
  }
  await cluster.disk.empty();
  cluster.unexpectedExits.length = 0;
  const plan = await cluster.cluster.plan([
    ...SETTINGS,
    `fleet.workers.max=${String(schedule.gangMax)}`,
    ...Object.entries(schedule.checkpointIntervals).map(([job, steps]) => `checkpoints.${job}=${String(steps)}`),
  ]);
  const watch = new RunWatch(plan.runId, cluster.cluster.controllerAddress);
  const ended = new AbortController();
  const startedMs = Date.now();
  await cluster.cluster.submit(plan);
  const trouble: string[] = [];
  const hurting = hurt(schedule, { cluster, watch, ended: ended.signal, troubles: trouble });
  const end = await runEnd({ cluster, plan, deadlineMs });
  const seconds = (Date.now() - startedMs) / 1000;
  const hung = end.type === 'hung';
  const evidence = end.type === 'done' ? '' : await evidenceOf(cluster, plan);
  ended.abort();
  const injected = await hurting;
  const incidents = (await statusOf(cluster, plan))?.incidents ?? [];
  if (end.type !== 'done') trouble.unshift(end.why);
  await cluster.whole();
  if (!hung) trouble.push(...(await brokenPromises(cluster)));
  trouble.push(...cluster.unexpectedExits);
  watch.close();
  const digest = end.type === 'done' ? end.result.resultDigest : null;
  const outcome = end.type === 'done' ? (digest === expectedDigest ? 'identical' : 'different') : end.type;
  const row: TrialRow = {
    seed: schedule.seed,
    outcome,
    faults: injected.map(({ fault, hit, atMs }) => ({
      ...faultRow(fault, hit),
      ...(atMs === null ? {} : watch.recovery(atMs, { incidents, throughRestart: restartsController(fault) })),
    })),
    stepsRepeated: stepsRepeated(watch.heard),
    incidents: incidents.map(({ cause, jobKind }) => `${cause}/${jobKind}`),
    seconds,
    trouble,
    evidence,
  };
  return { row, digest };
}

interface Hurt {
  fault: Fault;
  hit: string | null;
  atMs: number | null;
}

interface HurtOptions {
  cluster: FaultCluster;
  watch: RunWatch;
  ended: AbortSignal;
  /** Gets what went wrong with the faults themselves. */
  troubles: string[];
}

/** Does every fault at its moment; resolves when all have passed, or will not come any more. */
async function hurt(
  { faults, checkpointIntervals }: Schedule,
  { cluster, watch, ended, troubles }: HurtOptions,
): Promise<Hurt[]> {
  let before: Promise<Hurt> | null = null;
  const overs: Promise<void>[] = [];
  const all = faults.map((fault) => {
    const previous: Promise<Hurt> | null = before;
    const hurting = (async (): Promise<Hurt> => {
      const missed = { fault, hit: null, atMs: null };
      const { moment } = fault;
      let matches;
      if (moment.at === 'recovery') {
        // Awaited in two parts: first the fault before, then the first step after its incident.
        const first = await previous;
        if (first?.atMs == null) return missed;
        const sinceMs = first.atMs;
        const throughRestart = restartsController(first.fault);
        matches = () => watch.recovery(sinceMs, { throughRestart }).firstStepAfterMs !== null;
      } else {
        matches = isMoment(moment, checkpointIntervals);
      }
      if ((await watch.first(matches, ended)) === null) return missed;
      const atMs = Date.now();
      try {
        const { hit, over } = await inject(fault, cluster);
        overs.push(over.catch((error: unknown) => void troubles.push(`${hit}: ${messageOf(error)}`)));
        return { fault, hit, atMs };
      } catch (error) {
        troubles.push(`${describeFault(fault)} could not be done: ${messageOf(error)}`);
        return missed;
      }
    })();
    before = hurting;
    return hurting;
  });
  const done = await Promise.all(all);
  await Promise.all(overs);
  return done;
}

function restartsController({ target, kind }: Fault): boolean {
  return target === 'controller' && (kind === 'kill' || kind === 'preempt');
}

type RunEnd = { type: 'done'; result: RunResult } | { type: 'lost' | 'hung'; why: string };

/** How the run ended, asked again and again: the Temporal server may be away for a while. */
async function runEnd({
  cluster,
  plan,
  deadlineMs,
}: {
  cluster: FaultCluster;
  plan: RunPlan;
  deadlineMs: number;
}): Promise<RunEnd> {
  const deadline = Date.now() + deadlineMs;
  while (Date.now() < deadline) {
    const handle = cluster.cluster.client.workflow.getHandle(plan.runId);
    const state = await answered(cluster, async () => (await handle.describe()).status.name);
    if (state === 'COMPLETED') {
      const result = await answered(cluster, async () => (await handle.result()) as RunResult);
      if (result !== null) return { type: 'done', result };
    } else if (state !== null && state !== 'RUNNING') {
      const failure = (await statusOf(cluster, plan))?.failure ?? 'no failure told';
      return { type: 'lost', why: `the run ended as ${state}: ${failure}` };
    }
    await sleep(POLL_MS);
  }
  return { type: 'hung', why: `no end within ${String(deadlineMs / 1000)} s` };
}

/** Null when the server does not answer in time, for whatever reason. */
async function answered<T>(cluster: FaultCluster, call: () => Promise<T>): Promise<T | null> {
  try {
    return await cluster.cluster.client.connection.withDeadline(Date.now() + CALL_TIMEOUT_MS, call);
  } catch {
    return null;
  }
}

async function statusOf(cluster: FaultCluster, plan: RunPlan): Promise<RunStatus | null> {
  const end = Date.now() + QUIET_TIMEOUT_MS;
  for (;;) {
    const handle = cluster.cluster.client.workflow.getHandle(plan.runId);
    const status = await answered(cluster, () => handle.query<RunStatus>(STATUS_QUERY));
    if (status !== null || Date.now() > end) return status;
    await sleep(POLL_MS);
  }
}

/** What must be true after every run, once everything is up again. */
async function brokenPromises(cluster: FaultCluster): Promise<string[]> {
  const broken: string[] = [];
  const end = Date.now() + QUIET_TIMEOUT_MS;
  for (;;) {
    const leases = await cluster.cluster.leases().catch(() => ['(the controller does not answer)']);
    if (leases.length === 0) break;
    if (Date.now() > end) {
      broken.push(`leases held after the run: ${leases.join(', ')}`);
      break;
    }
    await sleep(POLL_MS);
  }
  return [...broken, ...cluster.strays(), ...(await cluster.disk.faultsFound())];
}

async function evidenceOf(cluster: FaultCluster, plan: RunPlan): Promise<string> {
  const status = await statusOf(cluster, plan);
  return `status ${JSON.stringify(status, null, 1)}\n${cluster.logTails()}`;
}

function faultRow(fault: Fault, hit: string | null): FaultRow {
  return {
    fault: describeFault(fault),
    moment: describeMoment(fault.moment),
    hit,
    noticedAfterMs: null,
    firstStepAfterMs: null,
  };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
