/** Where the command line finds the project it belongs to: its root, its compiled code and its entry points. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { CliError } from './cli-error.js';

const here = dirname(fileURLToPath(import.meta.url));

function findProjectRoot(): string {
  for (let folder = here; folder !== dirname(folder); folder = dirname(folder)) {
    const file = join(folder, 'package.json');
    if (existsSync(file) && (JSON.parse(readFileSync(file, 'utf8')) as { name?: string }).name === 'collimate') {
      return folder;
    }
  }
  throw new CliError('badInput', `expected a package.json named "collimate" above ${here}; reinstall the project`);
}

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
  return (JSON.parse(readFileSync(join(projectRoot, 'package.json'), 'utf8')) as { version: string }).version;
}
