/**
 * Runs one attempt at one job from its definition to its terminal event.
 *
 * 1. Inputs come verified from the store; outputs and checkpoints go back by content; only rank 0 writes.
 * 2. Native jobs run on native threads and domain jobs in a worker thread, so this thread keeps answering.
 * 3. An attempt always ends with exactly one terminal event, and its scratch folder is gone by then.
 */
import { mkdir, rm } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';

import type { JobDefinition__Output } from '../../proto/generated/collimate/v1/JobDefinition.js';
import type { ArtifactStore } from '../../orchestrator/artifacts/store.js';
import type { Logger } from '../../orchestrator/telemetry/logger.js';
import { DOMAIN_JOB_KINDS, type DomainJobKind, type JobResult, type JobSpec } from '../../workflows/contract.js';
import { createListener, startJob, type NativeJob, type NativeJobOutcome } from './addon.js';
import { runDomainJob } from './domain-runner.js';
import { EventLog, type EventBody } from './event-log.js';
import { failureOf, type Failure } from './failure.js';
import type { AttemptRef } from './lease.js';

const CONTROL_CHECKPOINT = 1;
const CONTROL_STOP = 2;
const CHECKPOINTS_KEPT = 2;

export interface JobOrder extends AttemptRef {
  definition: JobDefinition__Output;
  rank: number;
  world: number;
  rendezvousAddress: string;
  resumeManifestDigest: string;
  checkpointIntervalSteps: number;
}

export type JobMeasure =
  | { type: 'step'; seconds: number }
  | { type: 'checkpoint'; seconds: number }
  | { type: 'ended'; kind: string; outcome: 'finished' | 'stopped' | 'failed' };

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
  readonly #scratch: string;
  #native: NativeJob | null = null;
  #kind = 'unknown';
  /** Digests whose local paths this job holds. */
  readonly #inputs: string[] = [];
  #control = 0;
  #lastStepAtMs = performance.now();
  #commits: Promise<void> = Promise.resolve();

  constructor(order: JobOrder, options: JobRunnerOptions) {
    this.order = order;
    this.#options = options;
    const folder = `${order.jobId.replaceAll('/', '~')}~${String(order.epoch)}~${String(order.rank)}`;
    this.#scratch = join(options.scratchRoot, folder);
    this.done = this.#run().catch((error: unknown) => {
      options.log.error({ err: error }, 'the end of a job failed');
      this.events.append({ failed: { ...failureOf(error), step: 0 } });
    });
  }

  requestCheckpoint(): void {
    this.#request(CONTROL_CHECKPOINT);
  }

  requestStop(): void {
    this.#request(CONTROL_STOP);
  }

  /** Leaves without a checkpoint; `done` settles soon after. */
  abort(): void {
    this.#abort.abort(new Error('the attempt was cancelled'));
    this.#native?.abort();
  }

  #request(flags: number): void {
    this.#control |= flags;
    this.#native?.requestControl(flags);
  }

  async #run(): Promise<void> {
    try {
      await rm(this.#scratch, { recursive: true, force: true });
      const outputDir = join(this.#scratch, 'output');
      await mkdir(outputDir, { recursive: true });
      const spec = JSON.parse(this.order.definition.specJson) as JobSpec;
      this.#kind = spec.kind;
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
      await this.#commits.catch(() => undefined);
      const failure = this.#failureOf(error);
      this.#options.log.warn({ cause: failure.cause, err: error }, `job failed: ${failure.message}`);
      await this.#clean();
      this.#end({ failed: { ...failure, step: 0 } }, 'failed');
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
    const { store, threads, tensorHost } = this.#options;
    const scratchDir = join(this.#scratch, 'checkpoints');
    await mkdir(scratchDir, { recursive: true });
    let resumeDir: string | null = null;
    if (order.resumeManifestDigest !== '') {
      resumeDir = join(this.#scratch, 'resume');
      await store.restoreCheckpoint(order.resumeManifestDigest, resumeDir);
    }
    const gang = order.world > 1 ? await this.#joinGang(tensorHost) : null;
    this.#abort.signal.throwIfAborted();
    this.#native = startJob(
      {
        kind: spec.kind,
        recipe: spec.recipe,
        inputs,
        outputDir,
        scratchDir,
        resumeDir,
        checkpointIntervalSteps: order.checkpointIntervalSteps,
        threads,
        gang,
      },
      {
        onStep: (step, stepsTotal, metrics) => {
          this.#onStep(step, stepsTotal, metrics);
        },
        onLog: (level, message) => {
          this.events.append({ log: { level, message } });
        },
        onCheckpoint: (step, folder, seconds) => {
          // Chained, so that checkpoints are committed in order and the end of the job waits for the last one.
          this.#commits = this.#commits.then(() => this.#commitCheckpoint(step, folder, seconds));
          this.#commits.catch(() => {
            this.#native?.abort();
          });
        },
      },
    );
    if (this.#control !== 0) this.#native.requestControl(this.#control);
    let outcome: NativeJobOutcome;
    try {
      outcome = await this.#native.promise;
    } finally {
      // A checkpoint that could not be stored is the reason for the end, so it is what gets reported.
      await this.#commits;
    }
    if (outcome.kind === 'stopped') {
      await this.#clean();
      this.#end({ stopped: { step: outcome.step } }, 'stopped');
    } else {
      await this.#finish(outcome.outputs, outcome.summary);
    }
  }

  async #joinGang(tensorHost: string) {
    const { order } = this;
    const listener = createListener(tensorHost);
    const addresses = await this.#options.meet(order, listener.address, this.#abort.signal);
    // Ranks that go on from different checkpoints must not compute together.
    const generation = `${order.jobId}#${String(order.epoch)}#${order.resumeManifestDigest}`;
    return { rank: order.rank, world: order.world, generation, addresses, listener: listener.handle };
  }

  #onStep(step: number, stepsTotal: number, metrics: Record<string, number>): void {
    const now = performance.now();
    const stepSeconds = (now - this.#lastStepAtMs) / 1000;
    this.#lastStepAtMs = now;
    this.#options.onMeasure({ type: 'step', seconds: stepSeconds });
    this.events.append({ step: { step, stepsTotal, metrics: { ...metrics, step_seconds: stepSeconds } } });
  }

  async #commitCheckpoint(step: number, folder: string, seconds: number): Promise<void> {
    const startedMs = performance.now();
    const { store } = this.#options;
    const key = this.order.definition.key;
    const { manifestDigest, bytes } = await store.putCheckpoint(key, step, folder);
    await rm(folder, { recursive: true, force: true });
    await store.pruneCheckpoints(key, CHECKPOINTS_KEPT);
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
        const path = outputs[name];
        if (path === undefined) throw new Error(`output ${name} has no path`);
        digests[name] = await store.putFile(resolve(this.#scratch, 'output', path));
        this.#options.log.debug({ output: name, file: basename(path), digest: digests[name] }, 'output stored');
      }
      const result: JobResult = { key: this.order.definition.key, outputs: digests, summary };
      await store.commitJobResult(result);
      resultJson = JSON.stringify(result);
    }
    await this.#clean();
    this.#end({ finished: { resultJson } }, 'finished');
  }

  #end(event: EventBody, outcome: 'finished' | 'stopped' | 'failed'): void {
    this.events.append(event);
    this.#options.onMeasure({ type: 'ended', kind: this.#kind, outcome });
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
    await this.#options.store.releasePaths(this.#inputs.splice(0));
    await rm(this.#scratch, { recursive: true, force: true }).catch((error: unknown) => {
      this.#options.log.warn({ err: error }, `scratch folder ${this.#scratch} could not be removed`);
    });
  }
}
