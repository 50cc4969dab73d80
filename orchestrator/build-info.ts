/** What was built: read from dist/build-info.json, which `workflows/bundle.mjs` writes. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export interface BuildInfo {
  version: string;
  /** Hash over every source file that can change a job's result; part of every job key. */
  engineRevision: string;
}

/** The project's root: the folder of the nearest package.json above this file, in the source and in dist/ alike. */
export function projectRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) {
    const parent = dirname(folder);
    if (parent === folder) throw new Error('no package.json above the program; reinstall the project');
    folder = parent;
  }
  return folder;
}

export function readBuildInfo(): BuildInfo {
  const path = join(projectRoot(), 'dist', 'build-info.json');
  if (!existsSync(path)) throw new Error(`expected ${path}, which is missing: run "npm run build"`);
  return JSON.parse(readFileSync(path, 'utf8')) as BuildInfo;
}
