/** Where the command line finds the project it belongs to: its root, its compiled code and its entry points. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { projectRoot as findProjectRoot, readBuildInfo } from '../build-info.js';
import { CliError } from './cli-error.js';

const here = dirname(fileURLToPath(import.meta.url));

export const projectRoot = findProjectRoot();

/** Compiled code: the folder this file was loaded from when compiled, else `dist` (tests run from source). */
const compiledRoot = import.meta.url.endsWith('.js') ? dirname(dirname(here)) : join(projectRoot, 'dist');

export const ENTRY_POINTS = {
  controller: 'orchestrator/controller/main.js',
  worker: 'native/worker/main.js',
  serve: 'orchestrator/serving/main.js',
  supervisor: 'orchestrator/cli/supervisor-main.js',
  cli: 'orchestrator/cli/main.js',
} as const;
export type EntryPoint = keyof typeof ENTRY_POINTS;

export function entryPoint(name: EntryPoint): string {
  const path = join(compiledRoot, ENTRY_POINTS[name]);
  if (!existsSync(path)) {
    throw new CliError('badInput', `${path} is missing: the project is not built; run "npm run setup"`);
  }
  return path;
}

export function projectVersion(): string {
  return readBuildInfo().version;
}
