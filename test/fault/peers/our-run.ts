/**
 * One run of Collimate under the same fault: a controller, a Temporal server and workers of its own, one more than the gang takes.
 *
 * 1. Black-box: everything is read from `WatchRun`, as an operator would see it, and the victim is the worker that tells the steps.
 * 2. Detection is the first sign, as with the peers: a survivor's word that it lost a peer, or the note of the incident. Times are
 *    the controller's, on the same clock.
 * 3. The store is new each time: in a used one the tuning would be answered from memory.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { join } from 'node:path';

import { loadService, makeClient } from '../../../orchestrator/fleet/channel.js';
import type { FleetServiceClient } from '../../../proto/generated/collimate/v1/FleetService.js';
import type { WatchRunResponse__Output } from '../../../proto/generated/collimate/v1/WatchRunResponse.js';
import { Cluster, ROOT } from '../../support/cluster.js';
import { type Fault, type Trace, type Work } from './recovery.js';

const RUN_DEADLINE_MS = 300_000;
const RUN_FILE = join(ROOT, 'deploy', 'examples', 'demo.yaml');
const SPARES = 1;

export interface OurOptions {
  work: Work;
  world: number;
  fault: Fault | null;
}

/** The demo's model and its optimizer on a shop so small that what comes before and after tuning takes seconds. */
function settings({ work, world }: OurOptions): string[] {
  return [
    ...['data.simulate.items=300', 'data.simulate.users=300', 'data.simulate.eventsPerUserMin=18'],
    ...['embed.epochs=2', 'codebooks.iterations=4', 'rank.beams=10', 'rank.topK=10', 'rank.searchLossPrompts=0'],
    ...['evaluate.k=[1,5,10]', 'dense=false', 'publish=false'],
    // Histories alone, as the peers' batches are.
    ...['render.tasks.text.weight=0', 'render.tasks.query.weight=0'],
    ...[`tune.steps=${String(work.steps)}`, `tune.batchSequences=${String(work.batchSequences)}`, 'tune.warmupSteps=5'],
    ...[`checkpoints.tune=${String(work.checkpointSteps)}`, `fleet.workers.max=${String(world)}`],
  ];
}

export async function runOurs(options: OurOptions): Promise<Trace> {
  const { fault, world } = options;
  const cluster = await Cluster.start(Array.from({ length: world + SPARES }, (_, n) => ({ id: `w-${String(n)}` })));
  try {
    const plan = await cluster.plan(settings(options), RUN_FILE);
    const trace: Trace = { startedMs: Date.now(), steps: [], faultMs: null, signs: [], finishedMs: null, digest: null };
    let faulted: () => void = () => undefined;
    const faultCame = new Promise<void>((resolve) => {
      faulted = resolve;
    });
    const stop = watch(cluster, plan.runId, (event) => {
      const timeMs = event.timeUnixSeconds * 1000;
      if (event.entry === 'note' && trace.faultMs !== null && event.note?.startsWith('incident') === true) {
        trace.signs.push({ by: 'controller', timeMs });
      }
      if (event.jobEvent?.jobId.endsWith('/tune') !== true) return;
      const { step, finished, parked, epoch } = event.jobEvent;
      if (parked?.reason === 'PARK_REASON_PEER_LOST') trace.signs.push({ by: 'survivor', timeMs });
      if (finished != null) trace.finishedMs ??= timeMs;
      if (step == null) return;
      trace.steps.push({ attempt: epoch, step: step.step, timeMs });
      if (fault === null || trace.faultMs !== null || step.step < fault.atStep) return;
      const victim = cluster.workers.get(event.workerId);
      if (victim === undefined) throw new Error(`expected a worker of this cluster, got ${event.workerId}`);
      trace.faultMs = Date.now();
      victim.process.kill(fault.signal);
      faulted();
    });
    try {
      await cluster.submit(plan);
      const patience = new AbortController();
      const waited = { signal: patience.signal, ref: true };
      const tooLong = (ms: number) => sleep(ms, null, waited).catch(() => null);
      const result = await Promise.race([
        // A run that gives up after the fault is a result; before it, a mistake.
        cluster.result(plan.runId).catch((error: unknown) => {
          if (trace.faultMs === null) throw error;
          return null;
        }),
        tooLong(RUN_DEADLINE_MS + (fault?.watchMs ?? 0)),
        ...(fault === null ? [] : [faultCame.then(() => tooLong(fault.watchMs))]),
      ]);
      patience.abort();
      if (result === null && trace.faultMs === null) {
        throw new Error(`expected the run to end within ${String(RUN_DEADLINE_MS / 1000)} s, it goes on`);
      }
      trace.digest = result?.resultDigest ?? null;
      return trace;
    } finally {
      stop();
    }
  } finally {
    await cluster.close();
  }
}

/** Follows the run's events until the answer is called. */
function watch(cluster: Cluster, runId: string, onEvent: (event: WatchRunResponse__Output) => void): () => void {
  const address = `127.0.0.1:${String(cluster.ports.controller)}`;
  const client = makeClient<FleetServiceClient>(loadService('FleetService'), address);
  const stream = client.watchRun({ runId });
  stream.on('data', onEvent);
  // The figures that the rest of the events would have given stay empty, which the table shows.
  stream.on('error', () => undefined);
  return () => {
    stream.cancel();
    client.close();
  };
}
