// Fuzzes what reads files and specs from outside. Usage: node native/fuzz.mjs [--seconds N] [TARGET...]
//
// Needs Clang (libFuzzer). Inputs that were found are kept in build/fuzz/corpus and used again by the next run; an
// input that breaks a target is left in build/fuzz as crash-*, and the command ends with a non-zero status.
import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { buildPlain, must } from './plain_build.mjs';

const TARGETS = ['fuzz_safetensors', 'fuzz_train_examples', 'fuzz_job_spec'];

const { values, positionals } = parseArgs({
  options: { seconds: { type: 'string', default: '60' } },
  allowPositionals: true,
});
const seconds = Number(values.seconds);
if (!Number.isInteger(seconds) || seconds < 1) {
  console.error(`--seconds: expected a whole number of seconds for each target, got ${values.seconds}`);
  process.exit(2);
}
const unknown = positionals.filter((name) => !TARGETS.includes(name));
if (unknown.length > 0) {
  console.error(`unknown target ${unknown.join(', ')}; there are ${TARGETS.join(', ')}`);
  process.exit(2);
}

const compiler = process.env.COLLIMATE_CLANG ?? 'clang++';
if (spawnSync(compiler, ['--version']).status !== 0) {
  console.error(
    `${compiler} cannot be run: libFuzzer comes with Clang. Install it (Debian: apt-get install clang), or name one in COLLIMATE_CLANG`,
  );
  process.exit(1);
}

const targets = positionals.length > 0 ? positionals : TARGETS;
const out = buildPlain(
  'fuzz',
  {
    CMAKE_CXX_COMPILER: compiler,
    COLLIMATE_TESTS: 'OFF',
    COLLIMATE_FUZZ: 'ON',
    COLLIMATE_SANITIZE: 'address,undefined',
  },
  ['fuzz_seeds', ...targets],
);
const corpus = join(out, 'corpus');
mkdirSync(corpus, { recursive: true });
must('writing the first inputs', join(out, 'fuzz_seeds'), [corpus]);
for (const target of targets)
  must(`${target}: ${String(seconds)} s`, join(out, target), [
    `-max_total_time=${String(seconds)}`,
    '-timeout=10',
    '-rss_limit_mb=2048',
    '-print_final_stats=1',
    '-verbosity=0',
    `-artifact_prefix=${out}/`,
    join(corpus, target),
  ]);
