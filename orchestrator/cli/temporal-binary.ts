/**
 * Finds the Temporal server program, in the order that `deploy/bootstrap` uses: an explicit path in COLLIMATE_TEMPORAL,
 * the PATH, the project's cache. Getting it when it is nowhere is the bootstrap's work.
 */
import { accessSync, constants, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';

import { CliError } from './cli-error.js';
import { projectRoot } from './project-paths.js';

export interface FoundProgram {
  path: string;
  /** Where it was found, for `doctor`. */
  source: string;
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

export function onPath(name: string): string | null {
  for (const folder of (process.env['PATH'] ?? '').split(delimiter)) {
    const path = join(folder, name);
    if (folder !== '' && isProgram(path)) return path;
  }
  return null;
}

export function findTemporal(): FoundProgram | null {
  const explicit = process.env['COLLIMATE_TEMPORAL'];
  if (explicit !== undefined && explicit !== '') {
    if (isProgram(explicit)) return { path: explicit, source: 'COLLIMATE_TEMPORAL' };
    throw new CliError(
      'badInput',
      `COLLIMATE_TEMPORAL names ${explicit}, which is no program that can be run; correct or unset it`,
    );
  }
  const path = onPath('temporal');
  if (path !== null) return { path, source: 'PATH' };
  const cached = join(projectRoot, '.cache', 'bin', 'temporal');
  return isProgram(cached) ? { path: cached, source: 'project cache' } : null;
}

export function requireTemporal(): FoundProgram {
  const found = findTemporal();
  if (found === null) {
    throw new CliError(
      'badInput',
      'the Temporal server was found neither in COLLIMATE_TEMPORAL, nor on the PATH, nor in .cache/bin; run "npm run setup"',
    );
  }
  return found;
}
