// Bundles the compiled workflows once at build time, and records what was built.
//
// dist/workflow-bundle.js is loaded by the controller's Temporal worker; dist/build-info.json names the engine revision:
// the SHA-256 over every source file that can change a job's result.
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

import { bundleWorkflowCode } from '@temporalio/worker';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const ENGINE_FOLDERS = ['native/core', 'native/cpu', 'native/cuda', 'native/collective', 'orchestrator/recommender'];

/** Source files below a folder, in code-unit order of their paths; tests are not part of the engine. */
function sourceFiles(folder) {
  let entries;
  try {
    entries = readdirSync(join(root, folder), { recursive: true, withFileTypes: true });
  } catch (error) {
    if (error.code === 'ENOENT') return [];
    throw error;
  }
  return entries
    .filter((entry) => entry.isFile() && !entry.name.includes('.test.') && /\.(h|cc|cu|cuh|ts)$/.test(entry.name))
    .map((entry) => relative(root, join(entry.parentPath ?? entry.path, entry.name)))
    .sort((a, b) => (a < b ? -1 : 1));
}

const hash = createHash('sha256');
for (const file of ENGINE_FOLDERS.flatMap(sourceFiles)) {
  hash
    .update(`${file}\0`)
    .update(readFileSync(join(root, file)))
    .update('\0');
}
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const buildInfo = { version, engineRevision: hash.digest('hex').slice(0, 16) };
writeFileSync(join(root, 'dist/build-info.json'), `${JSON.stringify(buildInfo)}\n`);

const quiet = { trace() {}, debug() {}, info() {}, warn: console.warn, error: console.error, log() {} };
const { code } = await bundleWorkflowCode({ workflowsPath: join(root, 'dist/workflows/index.js'), logger: quiet });
writeFileSync(join(root, 'dist/workflow-bundle.js'), code);
