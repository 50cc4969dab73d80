/** The thread side of `domain-runner.ts`: one domain job, then the thread ends. */
import { parentPort, workerData } from 'node:worker_threads';

import { domainJobs } from '../../orchestrator/recommender/jobs.js';
import type { DomainMessage, DomainOrder } from './domain-runner.js';

const order = workerData as DomainOrder;
const post = (message: DomainMessage): void => {
  parentPort?.postMessage(message);
};

try {
  const outcome = await domainJobs[order.kind]({
    recipe: order.recipe,
    inputs: order.inputs,
    outputDir: order.outputDir,
    report: (step, stepsTotal, metrics) => {
      post({ type: 'report', step, stepsTotal, metrics });
    },
  });
  post({ type: 'done', outcome });
} catch (error) {
  const { name, message } = error instanceof Error ? error : { name: 'Error', message: String(error) };
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  post({ type: 'failed', name, message, code });
}
