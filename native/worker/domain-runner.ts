/** Runs a domain job in a thread of its own, so that long parsing never silences the worker's gRPC. */
import { Worker } from 'node:worker_threads';

import type { DomainJobOutcome } from '../../orchestrator/recommender/domain-job.js';
import type { DomainJobKind, JsonObject } from '../../workflows/contract.js';

export interface DomainOrder {
  kind: DomainJobKind;
  recipe: JsonObject;
  inputs: Record<string, string>;
  outputDir: string;
}

export type DomainMessage =
  | { type: 'report'; step: number; stepsTotal: number; metrics: Record<string, number> }
  | { type: 'done'; outcome: DomainJobOutcome }
  | { type: 'failed'; name: string; message: string; code: string };

export interface DomainRun extends DomainOrder {
  signal: AbortSignal;
  onReport: (step: number, stepsTotal: number, metrics: Record<string, number>) => void;
}

export async function runDomainJob({ signal, onReport, ...order }: DomainRun): Promise<DomainJobOutcome> {
  const thread = new Worker(new URL('./domain-thread.js', import.meta.url), { workerData: order });
  const abort = (): void => void thread.terminate();
  signal.addEventListener('abort', abort, { once: true });
  try {
    return await new Promise<DomainJobOutcome>((resolve, reject) => {
      thread.on('message', (message: DomainMessage) => {
        if (message.type === 'report') onReport(message.step, message.stepsTotal, message.metrics);
        else if (message.type === 'done') resolve(message.outcome);
        else reject(Object.assign(new Error(message.message), { name: message.name, code: message.code }));
      });
      thread.on('error', reject);
      thread.on('exit', (code) => {
        reject(new Error(signal.aborted ? 'the attempt was cancelled' : `domain thread exited with ${String(code)}`));
      });
    });
  } finally {
    signal.removeEventListener('abort', abort);
    await thread.terminate();
  }
}
