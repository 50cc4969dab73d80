/**
 * Runs one attempt at one job from its definition to its terminal event.
 *
 * 1. Inputs come verified from the store; outputs and checkpoints go back by content; only rank 0 writes.
 * 2. Native jobs run on native threads and domain jobs in a worker thread, so this thread keeps answering.
 * 3. An attempt always ends with exactly one terminal event. Its scratch folder is gone by then, except when it ends parked:
 *    its session then waits in `parkedSession` for the next attempt, with its folder.
 * 4. A dry run stores what it makes by content and tells its digests; nothing refers to it, so it cannot be taken for the job's.
 */
import { mkdir, rm } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';

import type { JobDefinition__Output } from '../../proto/generated/collimate/v1/JobDefinition.js';
import type { ParkReason } from '../../proto/generated/collimate/v1/ParkReason.js';
import type { ArtifactStore } from '../../orchestrator/artifacts/store.js';
import type { Logger } from '../../orchestrator/telemetry/logger.js';
import { DOMAIN_JOB_KINDS, type DomainJobKind, type JobResult, type JobSpec } from '../../workflows/contract.js';
import { createListener, type JobPhase, type NativeGang } from './addon.js';
import { runDomainJob } from './domain-runner.js';
import { EventLog, type EventBody } from './event-log.js';
import { failureOf, type Failure } from './failure.js';
import type { AttemptRef } from './lease.js';
import {
  CONTROL_CHECKPOINT,
  CONTROL_REGROUP,
  CONTROL_STOP,
  isElastic,
  NativeSession,
  type SessionEnd,
  type SessionFollower,
} from './native-session.js';

/** Where the order does not say. */
const CHECKPOINTS_KEPT = 2;

export interface JobOrder extends AttemptRef {
  definition: JobDefinition__Output;
  rank: number;
  world: number;
  rendezvousAddress: string;
  resumeManifestDigest: string;
  checkpointIntervalSteps: number;
  /** Take the state from another rank instead of a checkpoint. */
  joinSurvivors: boolean;
  memorySaving: number;
  /** 0: to the end. */
  untilStep: number;
  /** Nothing is published: a job is computed again to be compared. */
  dryRun: boolean;
  /** 0: as many as usual. */
  checkpointsKept: number;
}

/** A session that an earlier attempt at the job left parked, and what belongs to it. */
export interface ParkedSession {
  jobId: string;
  session: NativeSession;
  scratch: string;
  /** Digests whose local paths it holds. */
  inputs: string[];
}

export type JobMeasure =
  | { type: 'step'; seconds: number; numbers: Readonly<Record<string, number>> }
  | { type: 'checkpoint'; seconds: number }
  | {
      type: 'ended';
      kind: string;
      outcome: 'finished' | 'stopped' | 'parked' | 'failed';
      /** Unix milliseconds. */
      startedMs: number;
      /** Why it failed; null for other ends. */
      failure: Partial<Failure> | null;
    };

export interface JobRunnerOptions {
  store: ArtifactStore;
  scratchRoot: string;
  threads: number;
  /** Private interface that the tensor plane binds to. */
  tensorHost: string;
  log: Logger;
  /** Publishes this rank's address and answers all of them in rank order. */
  meet(order: JobOrder, address: string, signal: AbortSignal): Promise<string[]>;
  /** Told of what the worker's own metrics count. */
  onMeasure: (measure: JobMeasure) => void;
}

export class JobRun {
  readonly events = new EventLog();
  readonly order: JobOrder;
  readonly done: Promise<void>;
  readonly #options: JobRunnerOptions;
  readonly #abort = new AbortController();
  /** Aborts what an attempt waits for before its gang stands, so that it can end parked. */
  readonly #leave = new AbortController();
  readonly #startedMs = Date.now();
  readonly #scratch: string;
  /** Digests whose local paths this job holds. */
  readonly #inputs: string[];
  #session: NativeSession | null = null;
  #parked: ParkedSession | null = null;
  #kind = 'unknown';
  #control = 0;
  #preempted = false;
  #lastStepAtMs = performance.now();

  /** `adopted`: what an earlier attempt left parked; used if it is of the same job key, ended otherwise. */
  constructor(order: JobOrder, options: JobRunnerOptions, adopted: ParkedSession | null) {
    this.order = order;
    this.#options = options;
    const folder = `${order.jobId.replaceAll('/', '~')}~${String(order.epoch)}~${String(order.rank)}`;
    this.#scratch = adopted?.scratch ?? join(options.scratchRoot, folder);
    this.#inputs = adopted?.inputs ?? [];
    this.done = this.#run(adopted).catch((error: unknown) => {
      options.log.error({ err: error }, 'the end of a job failed');
      this.events.append({ failed: { ...failureOf(error), step: 0 } });
    });
  }

  /** What this attempt left waiting; null unless it ended parked. */
  get parkedSession(): ParkedSession | null {
    return this.#parked;
  }

  /** Where the native job is; null while none runs. */
  get progress(): { step: number; phase: JobPhase; waitingFor: number } | null {
    return this.events.ended ? null : (this.#session?.progress() ?? null);
  }

  requestCheckpoint(): void {
    this.#request(CONTROL_CHECKPOINT);
  }

  requestStop(): void {
    this.#request(CONTROL_STOP);
  }

  /** Asks the gang to leave at a step that all ranks agree on, and to wait with its state. */
  requestRegroup(): void {
    this.#request(CONTROL_REGROUP);
  }

  /** The worker has to end: state goes into a checkpoint, or stays with the other ranks. The attempt then ends as preempted. */
  preempt(): void {
    this.#preempted = true;
    const handsOver = isElastic(this.#kind) && this.order.world > 1;
    this.#request(handsOver ? CONTROL_REGROUP : CONTROL_STOP);
  }

  /** Leaves the gang at once, keeping the state if the job can; `done` settles soon after. */
  park(): void {
    if (!isElastic(this.#kind)) {
      this.abort();
      return;
    }
    this.#leave.abort(new Error('a newer gang of the job is being formed'));
    this.#session?.park();
  }

  /** Leaves without a checkpoint; `done` settles soon after. */
  abort(): void {
    this.#abort.abort(new Error('the attempt was cancelled'));
    this.#leave.abort(this.#abort.signal.reason);
    void this.#session?.abort();
  }

  #request(flags: number): void {
    this.#control |= flags;
    this.#session?.requestControl(flags);
  }

  async #run(adopted: ParkedSession | null): Promise<void> {
    try {
      const spec = JSON.parse(this.order.definition.specJson) as JobSpec;
      this.#kind = spec.kind;
      if (adopted !== null && this.#canGoOn(adopted.session)) {
        this.#session = adopted.session;
        await this.#goOn(adopted.session);
        return;
      }
      await adopted?.session.abort();
      await this.#clean();
      const outputDir = join(this.#scratch, 'output');
      await mkdir(outputDir, { recursive: true });
      const inputs: Record<string, string> = {};
      for (const [name, digest] of Object.entries(spec.inputs)) {
        inputs[name] = await this.#options.store.localPath(digest);
        this.#inputs.push(digest);
      }
      this.#abort.signal.throwIfAborted();
      const isDomain = (DOMAIN_JOB_KINDS as readonly string[]).includes(spec.kind);
      if (isDomain) await this.#runDomain(spec, inputs, outputDir);
      else await this.#runNative(spec, inputs, outputDir);
    } catch (error) {
      await this.#session?.abort();
      const failure = this.#failureOf(error);
      this.#options.log.warn({ cause: failure.cause, err: error }, `job failed: ${failure.message}`);
      await this.#clean();
      this.#end({ failed: { ...failure, step: stepOf(error) } }, 'failed');
    }
  }

  async #runDomain(spec: JobSpec, inputs: Record<string, string>, outputDir: string): Promise<void> {
    const outcome = await runDomainJob({
      kind: spec.kind as DomainJobKind,
      recipe: spec.recipe,
      inputs,
      outputDir,
      signal: this.#abort.signal,
      onReport: (step, stepsTotal, metrics) => {
        this.#onStep(step, stepsTotal, metrics);
      },
    });
    await this.#finish(outcome.outputs, outcome.summary);
  }

  async #runNative(spec: JobSpec, inputs: Record<string, string>, outputDir: string): Promise<void> {
    const { order } = this;
    const { store, threads } = this.#options;
    const scratchDir = join(this.#scratch, 'checkpoints');
    await mkdir(scratchDir, { recursive: true });
    let resumeDir: string | null = null;
    if (order.resumeManifestDigest !== '') {
      resumeDir = join(this.#scratch, 'resume');
      await store.restoreCheckpoint(order.resumeManifestDigest, resumeDir);
    }
    const gang = await this.#joinGang();
    this.#leave.signal.throwIfAborted();
    this.#session = new NativeSession({
      jobKey: order.definition.key,
      options: {
        kind: spec.kind,
        recipe: spec.recipe,
        inputs,
        outputDir,
        scratchDir,
        resumeDir,
        checkpointIntervalSteps: order.checkpointIntervalSteps,
        stopStep: order.untilStep,
        threads,
        gang,
        elastic: isElastic(spec.kind),
        joinSurvivors: order.joinSurvivors,
        memorySaving: order.memorySaving === 0 ? 0 : order.memorySaving === 1 ? 1 : 2,
      },
      follower: this.#follower(),
    });
    if (this.#control !== 0) this.#session.requestControl(this.#control);
    await this.#endOf(this.#session);
  }

  /** A session without state is of use only where another rank has it. */
  #canGoOn(session: NativeSession): boolean {
    const { definition, joinSurvivors, dryRun } = this.order;
    if (dryRun) return false;
    return session.jobKey === definition.key && session.isParked && (session.warmStep !== null || joinSurvivors);
  }

  /** The next attempt of a session that waits here. */
  async #goOn(session: NativeSession): Promise<void> {
    let gang: NativeGang | null;
    try {
      gang = await this.#joinGang();
    } catch (error) {
      this.#abort.signal.throwIfAborted();
      // Its state is worth keeping: another gang may come together.
      const message = error instanceof Error ? error.message : String(error);
      await this.#endParked({ kind: 'parked', step: session.warmStep ?? -1, reason: 'peer_lost', message }, session);
      return;
    }
    this.#abort.signal.throwIfAborted();
    session.goOn(gang, this.#follower());
    if (this.#control !== 0) session.requestControl(this.#control);
    await this.#endOf(session);
  }

  async #endOf(session: NativeSession): Promise<void> {
    const end = await session.attemptEnd();
    this.#abort.signal.throwIfAborted();
    if (end.kind === 'parked') {
      await this.#endParked(end, session);
    } else if (end.kind === 'stopped') {
      await this.#clean();
      if (this.#preempted) this.#end({ failed: { ...PREEMPTED, step: end.step } }, 'failed');
      else this.#end({ stopped: { step: end.step } }, 'stopped');
    } else {
      await this.#finish(end.outputs, end.summary);
    }
  }

  async #endParked(
    { step, reason, message }: Extract<SessionEnd, { kind: 'parked' }>,
    session: NativeSession,
  ): Promise<void> {
    if (this.#preempted) {
      await session.abort();
      await this.#clean();
      this.#end({ failed: { ...PREEMPTED, step: Math.max(0, step) } }, 'failed');
      return;
    }
    const { jobId } = this.order;
    this.#parked = { jobId, session, scratch: this.#scratch, inputs: this.#inputs };
    const name = `PARK_REASON_${reason.toUpperCase()}` as ParkReason;
    this.#end({ parked: { reason: name, step, message } }, 'parked');
  }

  #follower(): SessionFollower {
    return {
      onReady: (step) => {
        this.#lastStepAtMs = performance.now();
        this.events.append({ ready: { step } });
      },
      onStep: (step, stepsTotal, metrics) => {
        this.#onStep(step, stepsTotal, metrics);
      },
      onLog: (level, message) => {
        this.events.append({ log: { level, message } });
      },
      commit: (step, folder, seconds) => this.#commitCheckpoint(step, folder, seconds),
    };
  }

  async #joinGang(): Promise<NativeGang | null> {
    const { order } = this;
    if (order.world === 1) return null;
    const listener = createListener(this.#options.tensorHost);
    const addresses = await this.#options.meet(order, listener.address, this.#leave.signal);
    const generation = `${order.jobId}#${String(order.epoch)}`;
    return { rank: order.rank, world: order.world, generation, addresses, listener: listener.handle };
  }

  #onStep(step: number, stepsTotal: number, metrics: Record<string, number>): void {
    const now = performance.now();
    const stepSeconds = (now - this.#lastStepAtMs) / 1000;
    this.#lastStepAtMs = now;
    this.#options.onMeasure({ type: 'step', seconds: stepSeconds, numbers: metrics });
    this.events.append({ step: { step, stepsTotal, metrics: { ...metrics, step_seconds: stepSeconds } } });
  }

  async #commitCheckpoint(step: number, folder: string, seconds: number): Promise<void> {
    const startedMs = performance.now();
    const { store } = this.#options;
    const { definition, dryRun, checkpointsKept } = this.order;
    const { key } = definition;
    const put = dryRun ? store.putUnlistedCheckpoint(key, step, folder) : store.putCheckpoint(key, step, folder);
    const { manifestDigest, bytes } = await put;
    await rm(folder, { recursive: true, force: true });
    if (!dryRun) await store.pruneCheckpoints(key, checkpointsKept === 0 ? CHECKPOINTS_KEPT : checkpointsKept);
    const storeSeconds = (performance.now() - startedMs) / 1000;
    this.#options.onMeasure({ type: 'checkpoint', seconds: storeSeconds });
    this.events.append({ checkpoint: { step, manifestDigest, bytes, seconds: seconds + storeSeconds } });
  }

  async #finish(outputs: Record<string, string>, summary: JobResult['summary']): Promise<void> {
    const { store } = this.#options;
    let resultJson = '';
    if (this.order.rank === 0) {
      const digests: Record<string, string> = {};
      for (const name of Object.keys(outputs).sort()) {
        this.#abort.signal.throwIfAborted();
        const path = outputs[name];
        if (path === undefined) throw new Error(`output ${name} has no path`);
        digests[name] = await store.putFile(resolve(this.#scratch, 'output', path));
        this.#options.log.debug({ output: name, file: basename(path), digest: digests[name] }, 'output stored');
      }
      const result: JobResult = { key: this.order.definition.key, outputs: digests, summary };
      if (!this.order.dryRun) await store.commitJobResult(result);
      resultJson = JSON.stringify(result);
    }
    await this.#clean();
    this.#end({ finished: { resultJson } }, 'finished');
  }

  #end(event: EventBody, outcome: 'finished' | 'stopped' | 'parked' | 'failed'): void {
    this.events.append(event);
    const failure = event.failed ?? null;
    this.#options.onMeasure({ type: 'ended', kind: this.#kind, outcome, startedMs: this.#startedMs, failure });
  }

  /** After an abort whoever still listens has lost this worker: it is being shut down. Others have let go of the attempt. */
  #failureOf(error: unknown): Failure {
    const { cause, message } = failureOf(error);
    const givenUp = this.#abort.signal.aborted && cause === 'FAILURE_CAUSE_INTERNAL';
    return givenUp
      ? { cause: 'FAILURE_CAUSE_WORKER_LOST', message: 'the worker gave the attempt up' }
      : { cause, message };
  }

  async #clean(): Promise<void> {
    await removeTraces({ inputs: this.#inputs.splice(0), scratch: this.#scratch }, this.#options);
  }
}

/** Ends a session that no attempt goes on with. */
export async function discard(parked: ParkedSession, options: Pick<JobRunnerOptions, 'store' | 'log'>): Promise<void> {
  await parked.session.abort();
  await removeTraces(parked, options);
}

async function removeTraces(
  { inputs, scratch }: Pick<ParkedSession, 'inputs' | 'scratch'>,
  { store, log }: Pick<JobRunnerOptions, 'store' | 'log'>,
): Promise<void> {
  await store.releasePaths(inputs);
  await rm(scratch, { recursive: true, force: true }).catch((error: unknown) => {
    log.warn({ err: error }, `scratch folder ${scratch} could not be removed`);
  });
}

const PREEMPTED: Failure = {
  cause: 'FAILURE_CAUSE_PREEMPTED',
  message: 'the worker was told to end, and has handed its work over',
};

/** Updates applied when a native job failed; 0 when it does not say. */
function stepOf(error: unknown): number {
  const step = error instanceof Error && 'step' in error ? error.step : 0;
  return typeof step === 'number' && step > 0 ? step : 0;
}
