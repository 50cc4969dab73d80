/**
 * `npm run bench:recovery [-- --kills N --only ours,torchrun,torchrun-default,ray --json]`: what the loss of one worker costs, here and with the peers.
 *
 * 1. Every system trains a decoder of the same shape for the same steps in two processes of one thread, with the same checkpoints;
 *    rank 0, which writes them, gets the signal at the same step, between two of them.
 * 2. Systems take turns, a fault each, so that what else the machine does falls on all alike.
 * 3. A digest is compared with that of the system's own undisturbed run, and that with its run of one process.
 * 4. Peers need a Python with torch and transformers (COLLIMATE_PYTHON); Ray Train one that has "ray[train]" as well
 *    (COLLIMATE_RAY_PYTHON, else the same one). What is not there is a row that says so.
 * Not measured here: more than one machine, a network that fails, losses of the launcher itself.
 */
import { execFileSync } from 'node:child_process';
import { cpus, loadavg } from 'node:os';
import { parseArgs } from 'node:util';

import { findPython } from '../../support/python.js';
import { runOurs } from './our-run.js';
import { PEER_NAMES, runPeer, type PeerName } from './peer-run.js';
import { recoveryOf, type Fault, type Recovery, type Trace, type Work } from './recovery.js';
import { markdownTable, type Rows } from './table.js';

const IMPORT_DEADLINE_MS = 120_000;
const WORLD = 2;
const LIBRARIES: Record<PeerName, string[]> = {
  torchrun: ['torch', 'transformers'],
  'torchrun-default': ['torch', 'transformers'],
  ray: ['ray', 'torch', 'transformers'],
};

interface System {
  name: string;
  run(world: number, fault: Fault | null): Promise<Trace>;
}

const { values: flags } = parseArgs({
  options: {
    kills: { type: 'string', default: '5' },
    steps: { type: 'string', default: '120' },
    'checkpoint-steps': { type: 'string', default: '20' },
    'fault-step': { type: 'string', default: '50' },
    batch: { type: 'string', default: '32' },
    'sequence-tokens': { type: 'string', default: '80' },
    'watch-seconds': { type: 'string', default: '120' },
    only: { type: 'string', default: 'ours,torchrun,ray' },
    json: { type: 'boolean', default: false },
  },
});

function count(name: Exclude<keyof typeof flags, 'json' | 'only'>, least = 1): number {
  const value = Number(flags[name]);
  if (Number.isInteger(value) && value >= least) return value;
  throw new Error(`expected --${name} to be a whole number of at least ${String(least)}, got "${flags[name]}"`);
}

/** Versions of the libraries, or why this Python does not do. */
function versions(python: string, libraries: string[]): { versions: string } | { missing: string } {
  const code = libraries.map((name) => `import ${name}; print("${name}", ${name}.__version__)`).join('\n');
  try {
    const options = { encoding: 'utf8', stdio: 'pipe', timeout: IMPORT_DEADLINE_MS } as const;
    return { versions: execFileSync(python, ['-c', code], options).trim().replaceAll('\n', ', ') };
  } catch (error) {
    return { missing: `${python}: ${(error as Error).message.trim().split('\n').at(-1) ?? 'cannot be run'}` };
  }
}

/** Those that `--only` names, in its order; a peer that cannot run leaves its reason in `missing`. */
function systemsOf(work: Work, missing: string[]): System[] {
  const torch = findPython();
  return flags.only.split(',').flatMap((name): System[] => {
    if (name === 'ours') return [{ name: 'Collimate', run: (world, fault) => runOurs({ work, world, fault }) }];
    const peer = PEER_NAMES.find((known) => known === name);
    if (peer === undefined) {
      throw new Error(`expected --only to name ours, ${PEER_NAMES.join(', ')}, got "${name}"`);
    }
    const ray = process.env['COLLIMATE_RAY_PYTHON'];
    const python = peer === 'ray' && ray !== undefined ? ray : torch.path;
    const found = python === null ? { missing: torch.missing } : versions(python, LIBRARIES[peer]);
    if (python !== null && 'versions' in found) {
      const run = (world: number, fault: Fault | null) => runPeer({ peer, python, work, world, fault });
      return [{ name: `${peer} (${found.versions})`, run }];
    }
    missing.push(`${peer}: ${'missing' in found ? found.missing : ''}`);
    return [];
  });
}

async function measured(system: System, world: number, fault: Fault | null): Promise<Recovery> {
  const trace = await system.run(world, fault);
  if (fault !== null && trace.faultMs === null) {
    throw new Error(
      `${system.name}: expected step ${String(fault.atStep)} to come before the end of the run, it did not`,
    );
  }
  const recovery = recoveryOf(trace);
  console.error(JSON.stringify({ system: system.name, world, signal: fault?.signal ?? null, ...recovery }));
  return recovery;
}

async function main(): Promise<void> {
  const work: Work = {
    steps: count('steps', 3),
    checkpointSteps: count('checkpoint-steps'),
    batchSequences: count('batch', WORLD),
    sequenceTokens: count('sequence-tokens', 2),
  };
  const fault = { atStep: count('fault-step'), watchMs: count('watch-seconds') * 1000 };
  if (fault.atStep >= work.steps || fault.atStep % work.checkpointSteps === 0) {
    throw new Error(
      `expected --fault-step between two checkpoints and before the last step, got ${String(fault.atStep)} with ` +
        `${String(work.steps)} steps and a checkpoint every ${String(work.checkpointSteps)}`,
    );
  }
  const kills = count('kills');
  const missing: string[] = [];
  const systems = systemsOf(work, missing);
  const rows: Rows[] = [];
  for (const system of systems) {
    const undisturbed = await measured(system, WORLD, null);
    const alone = await measured(system, 1, null);
    rows.push({ system: system.name, undisturbed, alone, killed: [], stopped: null });
  }
  for (let kill = 0; kill < kills; kill += 1) {
    for (const [index, system] of systems.entries()) {
      rows[index]?.killed.push(await measured(system, WORLD, { ...fault, signal: 'SIGKILL' }));
    }
  }
  for (const [index, system] of systems.entries()) {
    const row = rows[index];
    if (row !== undefined) row.stopped = await measured(system, WORLD, { ...fault, signal: 'SIGSTOP' });
  }
  const machine = `${cpus()[0]?.model ?? 'unknown CPU'}, ${String(cpus().length)} cores, load ${(loadavg()[2] ?? 0).toFixed(1)} over 15 minutes`;
  const command = ['npm run bench:recovery --', ...process.argv.slice(2)].join(' ');
  const report = { machine, command, node: process.version, work, fault, kills, missing, rows };
  console.log(flags.json ? JSON.stringify(report, null, 2) : markdownTable(report));
}

await main();
