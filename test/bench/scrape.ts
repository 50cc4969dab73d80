/**
 * What being watched costs a worker: the same tuning job with and without a scrape of its metrics every second, by turns; first to
 * last step, median of the paired ratios, and how long scrapes take meanwhile.
 *
 *   npm run bench:scrape -- [--pairs 5] [--steps 400] [--every 1000]
 *
 * 1. The worker has one thread: what answers a scrape competes with the job for it at most.
 */
import { parseArgs } from 'node:util';

import type { RunPlan } from '../../workflows/contract.js';
import { Cluster, stepOf } from '../support/cluster.js';

const { values } = parseArgs({
  options: {
    pairs: { type: 'string', default: '5' },
    steps: { type: 'string', default: '400' },
    every: { type: 'string', default: '1000' },
  },
});
const steps = Number(values.steps);
const SETTINGS = [
  ...['data.simulate.items=300', 'data.simulate.users=300', 'data.simulate.eventsPerUserMax=30', 'embed.epochs=2'],
  ...['codebooks.iterations=4', 'rank.beams=10', 'rank.topK=10', 'rank.searchLossPrompts=0', 'evaluate.k=[1,5,10]'],
  ...['dense=false', 'publish=false', 'model.layers=3', 'model.dim=128', 'model.heads=4', 'model.kvHeads=2'],
  ...['model.ffnDim=352', 'tune.batchSequences=64', 'fleet.workers.max=1', `tune.steps=${values.steps}`],
];

const median = (numbers: number[]): number => {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? NaN;
};
const quantile = (numbers: number[], share: number): number =>
  [...numbers].sort((a, b) => a - b)[Math.min(numbers.length - 1, Math.floor(share * numbers.length))] ?? NaN;

async function secondsOf(cluster: Cluster, plan: RunPlan): Promise<number> {
  const first = cluster.firstEvent(plan.runId, stepOf('tune', 1));
  const last = cluster.firstEvent(plan.runId, stepOf('tune', steps));
  await cluster.submit(plan);
  const seconds = (await last).timeUnixSeconds - (await first).timeUnixSeconds;
  const result = await cluster.result(plan.runId);
  await cluster.forgetJob(result.jobs['tune']?.key ?? '');
  return seconds;
}

const cluster = await Cluster.start([{ id: 'w-0' }]);
try {
  const [worker] = await cluster.fleet();
  const url = `http://${worker?.hello?.metricsAddress ?? ''}/metrics`;
  const scrapes: number[] = [];
  let bytes = 0;
  const scrape = async (): Promise<void> => {
    const startedMs = performance.now();
    bytes = (await (await fetch(url, { signal: AbortSignal.timeout(5_000) })).text()).length;
    scrapes.push(performance.now() - startedMs);
  };
  const plain = async (): Promise<number> => secondsOf(cluster, await cluster.plan(SETTINGS));
  const watched = async (): Promise<number> => {
    const timer = setInterval(() => {
      scrape().catch((error: unknown) => {
        console.error(error);
      });
    }, Number(values.every));
    try {
      return await plain();
    } finally {
      clearInterval(timer);
    }
  };
  await plain();
  const ratios: number[] = [];
  for (let pair = 0; pair < Number(values.pairs); pair += 1) {
    // By turns, so that whatever changes with time changes for both.
    const watchedFirst = pair % 2 === 1;
    const first = watchedFirst ? await watched() : await plain();
    const second = watchedFirst ? await plain() : await watched();
    const [without, beside] = watchedFirst ? [second, first] : [first, second];
    ratios.push(beside / without);
    const slower = `${((beside / without - 1) * 100).toFixed(2)} %`;
    console.log(`pair ${String(pair + 1)}: ${without.toFixed(2)} s alone, ${beside.toFixed(2)} s scraped: ${slower}`);
  }
  console.log(`median of ${String(ratios.length)} pairs: ${((median(ratios) - 1) * 100).toFixed(2)} % slower`);
  console.log(
    `${String(scrapes.length)} scrapes of ${(bytes / 1024).toFixed(1)} KiB: median ${median(scrapes).toFixed(1)} ms, ` +
      `p99 ${quantile(scrapes, 0.99).toFixed(1)} ms`,
  );
} finally {
  await cluster.close();
}
