/**
 * Writes what is made from code and checked in: docs/metrics.md, docs/results.md, docs/run-file.md and the dashboards. `npm run generate`; with --check nothing
 * is written, and the exit code is 1 when something is out of date.
 */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { projectRoot } from '../orchestrator/build-info.js';
import { runFilePage } from '../orchestrator/cli/run-file-page.js';
import { metricsPage } from '../orchestrator/telemetry/metrics-page.js';
import { dashboardOf } from './grafana/dashboard.js';
import { ROOMS } from './grafana/rooms.js';
import { readResults, resultsPage } from './runs/results.js';

/** Content by path below the project's root. */
export function generatedFiles(): Map<string, string> {
  const titles = new Map(ROOMS.map(({ uid, title }) => [uid, title]));
  const files = new Map([
    ['docs/metrics.md', metricsPage()],
    ['docs/results.md', resultsPage(readResults())],
    ['docs/run-file.md', runFilePage()],
  ]);
  for (const room of ROOMS) {
    const json = JSON.stringify(dashboardOf(room, titles), null, 2);
    files.set(`deploy/grafana/dashboards/${room.uid}.json`, `${json}\n`);
  }
  return files;
}

/** Those of the files that are not as they should be. */
export function outOfDate(files: ReadonlyMap<string, string>): string[] {
  return [...files].flatMap(([path, content]) => (contentOf(join(projectRoot(), path)) === content ? [] : [path]));
}

function contentOf(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

function write(path: string, content: string): void {
  mkdirSync(dirname(path), { recursive: true });
  const temporary = `${path}.${String(process.pid)}.tmp`;
  writeFileSync(temporary, content);
  renameSync(temporary, path);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const files = generatedFiles();
  const stale = outOfDate(files);
  if (process.argv.includes('--check')) {
    for (const path of stale) console.error(`${path} is out of date; run "npm run generate"`);
    process.exitCode = stale.length === 0 ? 0 : 1;
  } else {
    for (const path of stale) write(join(projectRoot(), path), files.get(path) ?? '');
    console.error(stale.length === 0 ? 'all up to date' : `written: ${stale.join(', ')}`);
  }
}
