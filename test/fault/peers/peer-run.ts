/**
 * One training run of a peer in a folder of its own: started, faulted at a step, followed to its end or to the end of patience.
 *
 * 1. Steps, and what a surviving rank throws, come from the events that the ranks write themselves (decoder_training.py); a launcher's
 *    own words are timed when they arrive here. Whichever is first counts as detection.
 * 2. Launchers run with their defaults but for the number of restarts, and torchrun with a store of its own for each restart: by default
 *    torch 2.15 hands the ranks of a restart the store of the last, where they find the gloo addresses of the dead and fail again and
 *    again. `torchrun-default` is that default.
 * 3. Afterwards nothing of the run is left: its ranks, known by the events, are killed first, since a stopped one hears nothing else.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

import { projectRoot } from '../../../orchestrator/build-info.js';
import { type Fault, type Trace, type Work } from './recovery.js';

const POLL_MS = 5;
const RUN_DEADLINE_MS = 300_000;
const END_DEADLINE_MS = 20_000;
const SCRIPTS = join(projectRoot(), 'test', 'fault', 'peers');

export const PEER_NAMES = ['torchrun', 'torchrun-default', 'ray'] as const;
export type PeerName = (typeof PEER_NAMES)[number];

export interface PeerOptions {
  peer: PeerName;
  python: string;
  work: Work;
  world: number;
  fault: Fault | null;
}

interface PeerEvent {
  event: 'started' | 'step' | 'peer_lost' | 'finished';
  rank: number;
  pid: number;
  /** Unix seconds. */
  time: number;
  step?: number;
  digest?: string;
}

interface Peer {
  command: (options: PeerOptions, folder: string) => string[];
  env: Record<string, string>;
  /** A line of the launcher that shows that it knows of a loss. */
  knows: RegExp;
}

const TORCHRUN: Peer = {
  command: ({ work, world }, folder) => [
    ...['-m', 'torch.distributed.run', '--standalone', '--nnodes=1', `--nproc-per-node=${String(world)}`],
    ...['--max-restarts=8', join(SCRIPTS, 'under_torchrun.py'), ...settings(work, folder)],
  ],
  env: { TORCH_DISABLE_SHARE_RDZV_TCP_STORE: '1' },
  knows: /exitcode|Signal 9|closing signal/i,
};

const PEERS: Record<PeerName, Peer> = {
  torchrun: TORCHRUN,
  'torchrun-default': { ...TORCHRUN, env: {} },
  ray: {
    command: ({ work, world }, folder) => [join(SCRIPTS, 'under_ray.py'), ...settings(work, folder), String(world)],
    // Its usage reports would leave the machine.
    env: { RAY_USAGE_STATS_ENABLED: '0' },
    knows: /worker died|actor died|ActorDiedError|WorkerGroupError|health check failed/i,
  },
};

function settings({ steps, checkpointSteps, batchSequences, sequenceTokens }: Work, folder: string): string[] {
  return [folder, ...[steps, checkpointSteps, batchSequences, sequenceTokens].map(String)];
}

export async function runPeer(options: PeerOptions): Promise<Trace> {
  const folder = await mkdtemp(join(tmpdir(), `recovery-${options.peer}-`));
  const { command, env, knows } = PEERS[options.peer];
  const trace: Trace = { startedMs: Date.now(), steps: [], faultMs: null, signs: [], finishedMs: null, digest: null };
  const launcher = spawn(options.python, command(options, folder), {
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
    // Ray's workers import the training from the scripts' folder; a launcher that is killed leaves its own temporary files.
    env: { ...process.env, PYTHONPATH: SCRIPTS, OMP_NUM_THREADS: '1', TMPDIR: folder, ...env },
  });
  const said: string[] = [];
  // What a launcher says when it is ended from here is no sign of its own.
  let watched = true;
  for (const stream of [launcher.stdout, launcher.stderr]) {
    createInterface({ input: stream }).on('line', (line) => {
      said.push(line);
      if (watched && trace.faultMs !== null && knows.test(line))
        trace.signs.push({ by: 'launcher', timeMs: Date.now() });
    });
  }
  const ranks = new Set<number>();
  try {
    await follow({ options, folder, launcher, trace, ranks, said });
    return trace;
  } finally {
    watched = false;
    await end(launcher, ranks);
    await rm(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  }
}

interface Following {
  options: PeerOptions;
  folder: string;
  launcher: ChildProcess;
  trace: Trace;
  ranks: Set<number>;
  said: string[];
}

async function follow({ options, folder, launcher, trace, ranks, said }: Following): Promise<void> {
  const { fault, peer } = options;
  const last = () => said.slice(-15).join('\n');
  let failure: Error | null = null;
  let launcherGone = false;
  launcher.once('error', (error) => {
    failure = new Error(`expected to start ${peer} with ${options.python}, got: ${error.message}`, { cause: error });
  });
  launcher.once('exit', () => {
    launcherGone = true;
  });
  for (let offset = 0; ;) {
    // Asked before the events are read: the last of them are there once the launcher is gone.
    const isLastRead = launcherGone;
    const { lines, next } = await wholeLines(join(folder, 'events.ndjson'), offset);
    offset = next;
    for (const line of lines) {
      const { event, rank, pid, time, step = 0, digest } = JSON.parse(line) as PeerEvent;
      const timeMs = time * 1000;
      ranks.add(pid);
      if (event === 'peer_lost') trace.signs.push({ by: 'survivor', timeMs });
      if (rank !== 0) continue;
      if (event === 'step') trace.steps.push({ attempt: pid, step, timeMs });
      if (event === 'finished') Object.assign(trace, { finishedMs: timeMs, digest });
      if (event === 'step' && fault !== null && trace.faultMs === null && step >= fault.atStep) {
        trace.faultMs = Date.now();
        process.kill(pid, fault.signal);
      }
    }
    if (trace.finishedMs !== null) return;
    if (trace.faultMs !== null && fault !== null && Date.now() > trace.faultMs + fault.watchMs) return;
    if (failure !== null) throw failure as Error;
    // A launcher that gives up after the fault is a result; before it, a mistake.
    if (isLastRead && trace.faultMs !== null) return;
    if (isLastRead) throw new Error(`expected ${peer} to train to its end, it ended before:\n${last()}`);
    if (Date.now() > trace.startedMs + RUN_DEADLINE_MS + (fault?.watchMs ?? 0)) {
      throw new Error(`expected ${peer} to end within ${String(RUN_DEADLINE_MS / 1000)} s, it goes on:\n${last()}`);
    }
    await sleep(POLL_MS);
  }
}

/** Leaves a launcher that has its result, or has lost it, a moment to end by itself; then nothing of it stays. */
async function end(launcher: ChildProcess, ranks: Set<number>): Promise<void> {
  const { pid } = launcher;
  if (pid === undefined) return;
  const ended = async (ms: number): Promise<void> => {
    for (const until = Date.now() + ms; launcher.exitCode === null && launcher.signalCode === null;) {
      if (Date.now() > until) return;
      await sleep(50);
    }
  };
  if (launcher.exitCode === null && launcher.signalCode === null) {
    await ended(END_DEADLINE_MS / 4);
    launcher.kill('SIGTERM');
    for (const rank of ranks) kill(rank);
    await ended(END_DEADLINE_MS);
  }
  kill(-pid);
  await ended(END_DEADLINE_MS);
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Whole lines from a byte offset on; a line that is still being written is left for the next call. */
async function wholeLines(file: string, offset: number): Promise<{ lines: string[]; next: number }> {
  const bytes = await readFile(file).catch(() => Buffer.alloc(0));
  const end = bytes.lastIndexOf(0x0a) + 1;
  if (end <= offset) return { lines: [], next: offset };
  return { lines: bytes.subarray(offset, end).toString('utf8').split('\n').filter(Boolean), next: end };
}
