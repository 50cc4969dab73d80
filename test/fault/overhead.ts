/**
 * What orchestration costs a healthy run: the same tuning job under the whole system (Temporal, controller, worker, events, beats,
 * checkpoints) and alone in `collimate-native`, by turns on the same machine; first to last step, median of the ratios.
 *
 *   npm run bench:overhead -- [--pairs 5] [--steps 400]
 */
import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';

import type { RunPlan, RunResult } from '../../workflows/contract.js';
import { Cluster, ROOT, stepOf } from '../support/cluster.js';

const { values } = parseArgs({
  options: { pairs: { type: 'string', default: '5' }, steps: { type: 'string', default: '400' } },
});
const steps = Number(values.steps);
const pairs = Number(values.pairs);

/** Small before and after, the demo's decoder in the middle. */
const SETTINGS = [
  ...['data.simulate.items=300', 'data.simulate.users=300', 'data.simulate.eventsPerUserMin=18'],
  ...['embed.epochs=2', 'codebooks.iterations=4', 'rank.beams=10', 'rank.topK=10', 'rank.searchLossPrompts=0'],
  ...[
    'evaluate.k=[1,5,10]',
    'dense=false',
    'publish=false',
    `tune.steps=${values.steps}`,
    'checkpoints.tune=50',
    'fleet.workers.max=1',
  ],
];

/** Seconds from the first step's end to the last one's. */
async function orchestrated(cluster: Cluster, plan: RunPlan): Promise<{ seconds: number; result: RunResult }> {
  const first = cluster.firstEvent(plan.runId, stepOf('tune', 1));
  const last = cluster.firstEvent(plan.runId, stepOf('tune', steps));
  await cluster.submit(plan);
  const seconds = (await last).timeUnixSeconds - (await first).timeUnixSeconds;
  return { seconds, result: await cluster.result(plan.runId) };
}

async function alone(cluster: Cluster, plan: RunPlan, result: RunResult): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), 'collimate-overhead-'));
  try {
    const [outputDir, scratchDir] = [join(folder, 'output'), join(folder, 'scratch')];
    await mkdir(outputDir);
    await mkdir(scratchDir);
    const inputs: Record<string, string> = {};
    for (const name of ['train_examples', 'vocabulary']) {
      inputs[name] = await cluster.store.localPath(result.jobs['render']?.outputs[name] ?? '');
    }
    const job = { kind: 'tune', recipe: plan.recipes.tune, inputs, outputDir, scratchDir, checkpointIntervalSteps: 50 };
    await writeFile(join(folder, 'job.json'), JSON.stringify(job));
    const child = spawn(join(ROOT, 'build/native/collimate-native'), ['run', join(folder, 'job.json')], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let firstMs = 0;
    let lastMs = 0;
    for await (const line of createInterface({ input: child.stdout })) {
      const { event, step } = JSON.parse(line) as { event: string; step?: number };
      if (event !== 'step') continue;
      if (step === 1) firstMs = performance.now();
      if (step === steps) lastMs = performance.now();
    }
    if (firstMs === 0 || lastMs === 0) throw new Error(`expected steps 1 to ${String(steps)} of collimate-native`);
    return (lastMs - firstMs) / 1000;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const cluster = await Cluster.start([{ id: 'w-0' }]);
try {
  const file = join(ROOT, 'deploy', 'examples', 'demo.yaml');
  const warm = await orchestrated(cluster, await cluster.plan(SETTINGS, file));
  const ratios: number[] = [];
  for (let pair = 0; pair < pairs; pair++) {
    await cluster.forgetJob(warm.result.jobs['tune']?.key ?? '');
    const plan = await cluster.plan(SETTINGS, file);
    const ours = await orchestrated(cluster, plan);
    const native = await alone(cluster, plan, ours.result);
    ratios.push(ours.seconds / native);
    console.log(
      `pair ${String(pair + 1)}: ${ours.seconds.toFixed(3)} s orchestrated, ${native.toFixed(3)} s alone, ` +
        `${((ours.seconds / native - 1) * 100).toFixed(2)} %`,
    );
  }
  ratios.sort((a, b) => a - b);
  const median = ratios[Math.floor(ratios.length / 2)] ?? Number.NaN;
  console.log(`median overhead of ${String(steps)} steps: ${((median - 1) * 100).toFixed(2)} %`);
} finally {
  await cluster.close();
}
