/**
 * What a report is made of, read from the store: plan and status as they are given, and of the jobs' outputs what there is.
 *
 * 1. Whatever is missing is null, so that a run that failed has a report as far as it got. What is there and damaged is told
 *    in words, and does not keep the rest from being shown.
 * 2. Only what is shown is kept: titles of the items that examples name, one number a step of a curve.
 */
import { type JobResult, type JsonObject, type RunPlan, type RunStatus } from '../../workflows/contract.js';
import { type ArtifactStore } from '../artifacts/store.js';
import { type Fusion, readFusion } from '../recommender/fusion-file.js';
import { type EvaluationReport } from '../recommender/evaluation.js';
import { SafetensorsFile } from '../recommender/safetensors.js';
import { type Point } from './charts.js';
import { type ExampleUser, readExamples } from './example-users.js';
import { RunOutputs } from './run-outputs.js';

export interface ReportedRun {
  plan: RunPlan;
  status: RunStatus;
  /** Results so far, by name; of a run with a result those that it names. */
  jobs: Record<string, JobResult>;
}

export interface Curve {
  job: string;
  metric: string;
  points: Point[];
}

export interface CodeUsage {
  items: number;
  codes: number;
  /** By level, how many items have each code. */
  counts: Int32Array[];
}

export interface RunEvidence extends ReportedRun {
  metrics: EvaluationReport | null;
  oracle: JsonObject | null;
  fusion: Fusion | null;
  curves: Curve[];
  codes: CodeUsage | null;
  examples: ExampleUser[];
  /** What could not be read, and why. */
  trouble: string[];
}

const CURVE_METRICS = ['loss', 'objective'];

export async function gatherEvidence(store: ArtifactStore, run: ReportedRun): Promise<RunEvidence> {
  const trouble: string[] = [];
  const outputs = new RunOutputs(store, run.jobs);
  const orNull = async <T>(what: string, read: () => Promise<T | null>): Promise<T | null> => {
    try {
      return await read();
    } catch (error) {
      trouble.push(`${what}: ${error instanceof Error ? error.message : String(error)}`);
      return null;
    }
  };
  return {
    ...run,
    metrics: await orNull('metrics', () => outputs.json('evaluate', 'metrics') as Promise<EvaluationReport | null>),
    oracle: await orNull('oracle', () => outputs.json('simulate', 'oracle') as Promise<JsonObject | null>),
    fusion: await orNull('fusion', () => outputs.read('fit_fusion', 'fusion', readFusion)),
    curves: (await orNull('learning curves', () => readCurves(store, run, outputs))) ?? [],
    codes: await orNull('codebooks', () => outputs.read('codebooks', 'codes', readUsage)),
    examples: (await orNull('examples', () => readExamples(outputs))) ?? [],
    trouble,
  };
}

/** Every step where a job stored its curve, else what the event log has. */
async function readCurves(store: ArtifactStore, run: ReportedRun, outputs: RunOutputs): Promise<Curve[]> {
  const curves: Curve[] = [];
  for (const job of outputs.jobsWith('loss_curve')) {
    const points = await outputs.read(job, 'loss_curve', async (path) => {
      const { data } = (await SafetensorsFile.open(path)).f32('loss', [-1]);
      return Array.from(data, (y, step) => ({ x: step + 1, y }));
    });
    if (points !== null) curves.push({ job, metric: 'loss', points });
  }
  const logged = new Map<string, Curve>();
  for (const event of await store.readRunEvents(run.plan.runId)) {
    const { type, job, step, metrics } = event;
    if (type !== 'step' || typeof job !== 'string' || typeof step !== 'number') continue;
    const name = job.slice(job.indexOf('/') + 1);
    if (curves.some((curve) => curve.job === name)) continue;
    for (const metric of CURVE_METRICS) {
      const y = (metrics as JsonObject | undefined)?.[metric];
      if (typeof y !== 'number') continue;
      const curve = logged.get(`${name} ${metric}`) ?? { job: name, metric, points: [] };
      logged.set(`${name} ${metric}`, curve);
      curve.points.push({ x: step, y });
    }
  }
  return [...logged.values(), ...curves];
}

async function readUsage(path: string): Promise<CodeUsage> {
  const file = await SafetensorsFile.open(path);
  const { data, shape } = file.i32('codes', [-1, -1]);
  const [items = 0, levels = 0] = shape;
  const codes = file.f32('centroids', [levels, -1, -1]).shape[1] ?? 0;
  const counts = Array.from({ length: levels }, () => new Int32Array(codes));
  data.forEach((code, i) => {
    const ofLevel = counts[i % levels];
    if (ofLevel !== undefined) ofLevel[code] = (ofLevel[code] ?? 0) + 1;
  });
  return { items, codes, counts };
}
