/**
 * A Python with the libraries that models are exported for. Tests that need one skip without it and say why.
 *
 * Order: COLLIMATE_PYTHON, the project's cache (`deploy/bootstrap --with-test-tools` makes it), python3 of the PATH.
 */
import { execFile, execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';

import { projectRoot } from '../../orchestrator/build-info.js';

const IMPORTS = 'import torch, transformers, peft, safetensors, tokenizers, numpy';
const SCRIPT = join(projectRoot(), 'test', 'parity', 'peft_round_trip.py');

export type Python = { path: string; missing: null } | { path: null; missing: string };

export function findPython(): Python {
  const explicit = process.env['COLLIMATE_PYTHON'];
  const cached = join(projectRoot(), '.cache', 'python', 'bin', 'python');
  const candidates =
    explicit === undefined ? [cached, 'python3'].filter((path) => path === 'python3' || existsSync(path)) : [explicit];
  let missing = '';
  for (const path of candidates) {
    try {
      execFileSync(path, ['-c', IMPORTS], { stdio: 'pipe', timeout: 120_000 });
      return { path, missing: null };
    } catch (error) {
      const lines = (error as Error).message.trim().split('\n');
      missing = `${path}: ${lines.at(-1) ?? 'cannot be run'}`;
    }
  }
  return {
    path: null,
    missing: `no Python with torch, transformers and peft (${missing}); "deploy/bootstrap --with-test-tools" makes one`,
  };
}

/** Runs a command of peft_round_trip.py; answers the object that it printed. */
export function roundTrip<T>(python: string, command: string, ...args: string[]): Promise<T> {
  return new Promise((resolve, reject) => {
    execFile(python, [SCRIPT, command, ...args], { maxBuffer: 16 * 1024 * 1024 }, (error, stdout, stderr) => {
      if (error === null) resolve(JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as T);
      else reject(new Error(`${command} failed:\n${stderr}`));
    });
  });
}
