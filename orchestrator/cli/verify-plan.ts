/**
 * What of a finished run can be computed again: its jobs as they were run, and the checkpoints that the store still has.
 *
 * 1. A job is made from plan and result by the functions that the stages used, and taken only if it has the key under which
 *    its result is recorded: what is computed again is what was run.
 * 2. An interval lies between two whole checkpoints that follow each other; every damaged one is told.
 */
import {
  type Digest,
  type JobResult,
  type JobSpec,
  type RunPlan,
  type StageName,
  type VerificationRequest,
  type VerifiedInterval,
} from '../../workflows/contract.js';
import {
  alignCodesJob,
  codebooksJob,
  dccfJob,
  denseJobs,
  rqvaeJob,
  tuneJob,
  type OutputOf,
} from '../../workflows/native-jobs.js';
import { jobKeyOf } from '../artifacts/job-key.js';
import { type ArtifactStore } from '../artifacts/store.js';
import { readBuildInfo } from '../build-info.js';
import { CliError } from './cli-error.js';
import { readFinishedRun, type FinishedRun } from './finished-run.js';

export interface VerificationChoice {
  runId: string;
  /** Names of jobs; empty: all that have checkpoints. */
  jobs: string[];
  /** All intervals, or the last one between two checkpoints and the end. */
  all: boolean;
  fromStart: boolean;
  waitSeconds: number;
}

export interface DamagedCheckpoint {
  job: string;
  step: number;
  damage: string;
}

export interface VerificationPlan {
  run: FinishedRun;
  engineRevision: string;
  request: VerificationRequest;
  damaged: DamagedCheckpoint[];
  /** Jobs of which nothing can be verified, and why. */
  left: { job: string; reason: string }[];
}

type JobSource = [plan: RunPlan, outputOf: OutputOf];

/** In the order in which they run. */
const CHECKPOINTED = [
  { stage: 'embed', make: (...run: JobSource) => [dccfJob(...run)] },
  {
    stage: 'align_tokens',
    make: (...run: JobSource) => [rqvaeJob(...run), codebooksJob(...run), alignCodesJob(...run)],
  },
  { stage: 'align_tasks', make: (...run: JobSource) => [tuneJob(...run), ...denseJobs(...run)] },
] as const;

export async function planVerification(store: ArtifactStore, choice: VerificationChoice): Promise<VerificationPlan> {
  const run = await readFinishedRun(store, choice.runId);
  // Results of earlier versions do not name it; the keys then tell whether it is this one.
  const engineRevision = (run.result.engineRevision as string | undefined) ?? readBuildInfo().engineRevision;
  const { stallSeconds } = run.plan.limits;
  const plan: VerificationPlan = {
    run,
    engineRevision,
    request: {
      runId: choice.runId,
      jobs: {},
      intervals: [],
      waitSeconds: choice.waitSeconds,
      stallSeconds,
      historyEventsMax: run.plan.historyEventsMax,
      done: [],
    },
    damaged: [],
    left: [],
  };
  for (const job of chosenJobs(run, engineRevision, choice.jobs)) {
    const checkpoints = await store.inspectCheckpoints(job.key);
    const damaged = checkpoints.flatMap(({ step, damage }) =>
      damage === null ? [] : [{ job: job.name, step, damage }],
    );
    plan.damaged.push(...damaged);
    const whole = checkpoints.flatMap(({ step, manifestDigest, damage }) =>
      damage === null && manifestDigest !== null ? [{ step, manifestDigest }] : [],
    );
    const intervals = intervalsOf(job.name, whole, choice);
    if (intervals.length === 0) {
      const reason = damaged.length > 0 ? 'all its checkpoints are damaged' : 'the store has no checkpoint of it';
      plan.left.push({ job: job.name, reason });
      continue;
    }
    const { stage, key, spec, workersMax } = job;
    plan.request.jobs[job.name] = { stage, key, spec, workersMax };
    plan.request.intervals.push(...intervals);
  }
  return plan;
}

interface ChosenJob {
  name: string;
  stage: StageName;
  key: Digest;
  spec: JobSpec;
  workersMax: number;
}

function chosenJobs({ plan, result }: FinishedRun, engineRevision: string, names: string[]): ChosenJob[] {
  const outputOf: OutputOf = (job, output) => {
    const digest = result.jobs[job]?.outputs[output];
    if (digest === undefined) {
      throw new CliError('badInput', `expected output "${output}" of job "${job}" in the result of ${result.runId}`);
    }
    return digest;
  };
  const jobs = CHECKPOINTED.flatMap(({ stage, make }) =>
    make(plan, outputOf).flatMap((job) => (job === null ? [] : [{ stage, ...job }])),
  );
  const known = jobs.map(({ name }) => name);
  const unknown = names.find((name) => !known.includes(name));
  if (unknown !== undefined) {
    throw new CliError('badInput', `--job: expected a job with checkpoints (${known.join(', ')}), got "${unknown}"`);
  }
  return jobs
    .filter(({ name }) => names.length === 0 || names.includes(name))
    .map(({ stage, name, kind, recipe, inputs, workersMax }) => {
      const spec: JobSpec = { kind, recipe, inputs, numericsClass: result.numericsClass, engineRevision };
      const key = checkedKey(name, spec, { plan, recorded: result.jobs[name] });
      return { name, stage, key, spec, workersMax: Math.min(workersMax, plan.fleet.max) };
    });
}

function checkedKey(name: string, spec: JobSpec, run: { plan: RunPlan; recorded: JobResult | undefined }): Digest {
  const key = jobKeyOf(spec);
  const { recorded, plan } = run;
  if (recorded?.key === key) return key;
  throw new CliError(
    'badInput',
    `job ${name} of ${plan.runId}: expected plan and result to give the key that is recorded, ${recorded?.key ?? 'none'}, ` +
      `got ${key} with engine revision ${spec.engineRevision}; the files of the run were changed, or another version of ` +
      'Collimate made them: verify with that one',
  );
}

function intervalsOf(
  job: string,
  checkpoints: { step: number; manifestDigest: Digest }[],
  { all, fromStart }: VerificationChoice,
): VerifiedInterval[] {
  const points = checkpoints.map((from, index) => ({ job, from, to: checkpoints[index + 1] ?? null }));
  const chosen: VerifiedInterval[] = all ? points : points.slice(-2);
  return fromStart ? [{ job, from: null, to: checkpoints[0] ?? null }, ...chosen] : chosen;
}
