/**
 * A native job in a process of its own, without a fleet: `collimate-native run`, for what no workflow does.
 *
 * 1. The command line never loads the addon; a crash of native code is an exit status here.
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { type JsonObject } from '../../workflows/contract.js';
import { CliError, messageOf } from './cli-error.js';
import { projectRoot } from './project-paths.js';

const OUTPUT_BYTES_MAX = 16 * 1024 * 1024;
/** Merging the largest base reads and writes tens of gigabytes. */
const DEADLINE_MS = 3_600_000;

export interface NativeJob {
  kind: string;
  recipe: JsonObject;
  /** Input name to path. */
  inputs: Record<string, string>;
  /** Exists, empty. */
  outputDir: string;
  /** One, if left out. */
  threads?: number;
}

interface NativeEvent {
  event: string;
  message?: string;
  outputs?: Record<string, string>;
  summary?: JsonObject;
}

/** Output name to path, and the summary. */
export async function runNativeJob(job: NativeJob): Promise<{ outputs: Record<string, string>; summary: JsonObject }> {
  const program = join(projectRoot, 'build', 'native', 'collimate-native');
  if (!existsSync(program)) {
    throw new CliError('badInput', `${program} is missing: the native engine is not built; run "npm run setup"`);
  }
  const scratchDir = await mkdtemp(join(tmpdir(), 'collimate-native-'));
  try {
    const file = join(scratchDir, 'job.json');
    await writeFile(file, JSON.stringify({ ...job, scratchDir }));
    const { lines, failure } = await linesOf(program, ['run', file]);
    const last = lines.at(-1);
    if (last?.event === 'result') return { outputs: last.outputs ?? {}, summary: last.summary ?? {} };
    throw new CliError('badInput', `${job.kind}: ${last?.message ?? failure}`);
  } finally {
    await rm(scratchDir, { recursive: true, force: true });
  }
}

function linesOf(program: string, args: string[]): Promise<{ lines: NativeEvent[]; failure: string }> {
  return new Promise((resolve) => {
    execFile(program, args, { maxBuffer: OUTPUT_BYTES_MAX, timeout: DEADLINE_MS }, (error, stdout, stderr) => {
      const lines = stdout.split('\n').filter(Boolean).flatMap(parsed);
      resolve({ lines, failure: stderr.trim() || (error === null ? 'no result' : messageOf(error)) });
    });
  });
}

/** A line cut short by a crash is none. */
function parsed(line: string): NativeEvent[] {
  try {
    return [JSON.parse(line) as NativeEvent];
  } catch {
    return [];
  }
}
