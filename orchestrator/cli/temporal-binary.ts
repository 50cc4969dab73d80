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

/** A program by the variable that names it, else on the PATH; null when it is in neither. */
export function findProgram({ variable, name }: { variable: string; name: string }): FoundProgram | null {
  const explicit = process.env[variable];
  if (explicit !== undefined && explicit !== '') {
    if (isProgram(explicit)) return { path: explicit, source: variable };
    throw new CliError(
      'badInput',
      `${variable} names ${explicit}, which is no program that can be run; correct or unset it`,
    );
  }
  const path = onPath(name);
  return path === null ? null : { path, source: 'PATH' };
}

export function findTemporal(): FoundProgram | null {
  const found = findProgram({ variable: 'COLLIMATE_TEMPORAL', name: 'temporal' });
  if (found !== null) return found;
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
