/**
 * Runs a sweep: starts what may start, looks at what is under way, and says what came out.
 *
 * 1. All that it knows it reads from the store and from Temporal: killed and started again it goes on with the runs that there are.
 * 2. A run that has a result is never started again. One that failed, or was cancelled, in an earlier go gets a new attempt; one that
 *    fails under way is reported, and the others go on.
 * 3. Leaving (Ctrl-C) touches no run: what is under way goes on, what waits is started by the next go.
 */
import { setTimeout as sleep } from 'node:timers/promises';

import { type RunPlan, type RunResult, type RunStatus, type StageName } from '../../workflows/contract.js';
import { type ArtifactStore } from '../artifacts/store.js';
import { CliError, isAway } from './cli-error.js';
import { isOver, queryRunStatus } from './run-status.js';
import { startRun } from './start-run.js';
import { stagePrefixes, type SweepRun } from './sweep-plan.js';
import { nextToStart } from './sweep-schedule.js';
import { type TemporalSession } from './temporal-connection.js';

const POLL_MS = 500;
/** How long the servers may stay away before a sweep is left; its runs are not affected. */
const SILENCE_MAX_MS = 180_000;
const ATTEMPTS_MAX = 1_000;

export interface SweepOutcome {
  run: SweepRun;
  /** Of the attempt that counts. */
  runId: string;
  state: 'done' | 'failed' | 'cancelled';
  failure: string | null;
  result: RunResult | null;
}

export interface SweepWorld {
  session: TemporalSession;
  store: ArtifactStore;
  parallel: number;
  signal: AbortSignal;
  /** Told when a run is found done, found under way, started, moves to a stage, or ends. */
  onChange: (run: SweepRun, what: string) => void;
}

interface Following {
  position: number;
  runId: string;
  prefixes: Record<StageName, string>;
  done: Set<StageName>;
  stage: string;
}

/** Outcomes in the order of `runs`; null when it was left before the end. */
export async function runSweep(runs: SweepRun[], world: SweepWorld): Promise<SweepOutcome[] | null> {
  const outcomes = new Map<number, SweepOutcome>();
  const waiting: Starting['waiting'] = [];
  const underWay: Following[] = [];
  for (const [position, run] of runs.entries()) {
    const found = await findAttempt(run, world);
    if (found.result !== null) {
      outcomes.set(position, { run, runId: found.plan.runId, state: 'done', failure: null, result: found.result });
      world.onChange(run, `has its result, ${found.plan.runId}`);
    } else if (found.running) {
      underWay.push(following(position, found.plan));
      world.onChange(run, `is under way, ${found.plan.runId}`);
    } else waiting.push({ position, plan: found.plan });
  }
  let silentSinceMs: number | null = null;
  while (!world.signal.aborted && (waiting.length > 0 || underWay.length > 0)) {
    try {
      await startSome({ waiting, underWay, runs, world });
      for (const one of [...underWay]) {
        const outcome = await lookAt(one, runs, world);
        if (outcome === null) continue;
        outcomes.set(one.position, outcome);
        underWay.splice(underWay.indexOf(one), 1);
      }
      silentSinceMs = null;
    } catch (error) {
      if (!isAway(error)) throw error;
      silentSinceMs ??= Date.now();
      if (Date.now() - silentSinceMs > SILENCE_MAX_MS) throw error;
    }
    await sleep(POLL_MS, undefined, { signal: world.signal }).catch(() => undefined);
  }
  if (outcomes.size < runs.length) return null;
  return runs.map((_, position) => {
    const outcome = outcomes.get(position);
    if (outcome === undefined) throw new Error(`no outcome of run ${position} of the sweep`);
    return outcome;
  });
}

interface Attempt {
  plan: RunPlan;
  result: RunResult | null;
  running: boolean;
}

/** The attempt that has a result or is under way, else the next one to start. */
async function findAttempt({ plan }: SweepRun, { store, session }: SweepWorld): Promise<Attempt> {
  for (let number = 1; number <= ATTEMPTS_MAX; number += 1) {
    const attempt: RunPlan = number === 1 ? plan : { ...plan, runId: `${plan.runId}-${number}` };
    const result = await store.readRunFile(attempt.runId, 'result.json');
    if (result !== null) {
      return { plan: attempt, result: JSON.parse(result.toString('utf8')) as RunResult, running: false };
    }
    const status = await statusOf(session, attempt.runId);
    if (status === null || (status.state === 'done' && status.result === null)) {
      return { plan: attempt, result: null, running: false };
    }
    if (status.state === 'done') return { plan: attempt, result: status.result, running: false };
    if (!isOver(status)) return { plan: attempt, result: null, running: true };
  }
  throw new CliError(
    'badInput',
    `expected fewer than ${ATTEMPTS_MAX} failed attempts at ${plan.runId}; see its incidents`,
  );
}

/** Null when Temporal knows no such run. */
async function statusOf(session: TemporalSession, runId: string): Promise<RunStatus | null> {
  try {
    return await queryRunStatus(session, runId);
  } catch (error) {
    if (error instanceof CliError && error.exit === 'notFound') return null;
    throw error;
  }
}

function following(position: number, plan: RunPlan): Following {
  return { position, runId: plan.runId, prefixes: stagePrefixes(plan), done: new Set(), stage: '' };
}

interface Starting {
  waiting: { position: number; plan: RunPlan }[];
  underWay: Following[];
  runs: SweepRun[];
  world: SweepWorld;
}

/** Moves from `waiting` to `underWay` what may start, one by one: what an error leaves behind is still true. */
async function startSome({ waiting, underWay, runs, world }: Starting): Promise<void> {
  const { parallel, session, store } = world;
  for (;;) {
    const prefixes = waiting.map(({ plan }) => stagePrefixes(plan));
    const next = waiting[nextToStart(prefixes, { underWay, parallel })];
    if (next === undefined) return;
    const { position, plan } = next;
    await store.writeRunFile(plan.runId, 'plan.json', `${JSON.stringify(plan, null, 2)}\n`);
    try {
      await startRun(session, plan);
    } catch (error) {
      // An answer that got lost: it is under way, which is what was wanted.
      if (!isAlreadyStarted(error)) throw error;
    }
    waiting.splice(waiting.indexOf(next), 1);
    underWay.push(following(position, plan));
    const run = runs[position];
    if (run !== undefined) world.onChange(run, `started as ${plan.runId}`);
  }
}

function isAlreadyStarted(error: unknown): boolean {
  return (
    error instanceof Error &&
    error.cause instanceof Error &&
    error.cause.name === 'WorkflowExecutionAlreadyStartedError'
  );
}

/** Its outcome when it has ended. */
async function lookAt(one: Following, runs: SweepRun[], world: SweepWorld): Promise<SweepOutcome | null> {
  const run = runs[one.position];
  if (run === undefined) throw new Error(`no run ${one.position} in the sweep`);
  const status = await queryRunStatus(world.session, one.runId);
  for (const { name, state } of status.stages) {
    if (state === 'done') one.done.add(name);
    if (state !== 'running' || one.stage === name) continue;
    one.stage = name;
    world.onChange(run, name);
  }
  if (!isOver(status)) return null;
  const state = status.state === 'done' || status.state === 'cancelled' ? status.state : 'failed';
  world.onChange(run, state === 'done' ? 'done' : `${state}: ${status.failure ?? 'no reason given'}`);
  return { run, runId: one.runId, state, failure: status.failure, result: status.result };
}
