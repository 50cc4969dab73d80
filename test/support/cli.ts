/** Starts the compiled command line as a user would, and reads back what it did. */
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { projectRoot } from '../../orchestrator/cli/project-paths.js';

export interface CliResult {
  code: number;
  stdout: string;
  stderr: string;
}

const COMMAND = join(projectRoot, 'bin', 'collimate');

export function cli(args: string[], options: { timeoutMs?: number; env?: NodeJS.ProcessEnv } = {}): Promise<CliResult> {
  const { timeoutMs = 120_000, env = {} } = options;
  return new Promise((resolve) => {
    const settings = { timeout: timeoutMs, maxBuffer: 64 * 1024 * 1024, env: { ...process.env, ...env } };
    const child = execFile(process.execPath, [COMMAND, ...args], settings, (_error, stdout, stderr) => {
      resolve({ code: child.exitCode ?? -1, stdout, stderr });
    });
  });
}

/** The command in the background; its end is awaited by the caller. */
export function cliStarted(args: string[]): {
  child: ChildProcess;
  ended: Promise<CliResult>;
  /** What it has said so far. */
  stderrSoFar: () => string;
} {
  const child = spawn(process.execPath, [COMMAND, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const ended = new Promise<CliResult>((resolve) => {
    child.once('close', (code) => resolve({ code: code ?? -1, stdout, stderr }));
  });
  return { child, ended, stderrSoFar: () => stderr };
}

/** A home of its own below the system's temporary folder. */
export function temporaryHome(): { path: string; remove: () => void } {
  const path = mkdtempSync(join(tmpdir(), 'collimate-home-'));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

/** Polls until `check` gives a value; fails loudly after `timeoutMs`. */
export async function eventually<T>(
  what: string,
  check: () => T | null | Promise<T | null>,
  timeoutMs = 30_000,
): Promise<T> {
  const end = Date.now() + timeoutMs;
  for (;;) {
    const value = await check();
    if (value !== null) return value;
    if (Date.now() > end) throw new Error(`expected within ${timeoutMs / 1000} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
