// Everything that has to hold, in one go: format, lint, types and proto; native tests; unit tests; end-to-end tests.
//
// 1. Every part runs, whatever the ones before said; the exit code is 0 only when all passed.
// 2. The last line is `N passed, N failed` (`, N skipped` may follow).
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const reports = mkdtempSync(join(tmpdir(), 'collimate-test-'));

/** Output goes to the terminal as it comes, and is kept for the counts. */
function run(command, args) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
    let text = '';
    for (const [stream, out] of [
      [child.stdout, process.stdout],
      [child.stderr, process.stderr],
    ]) {
      stream.on('data', (chunk) => {
        text += chunk;
        out.write(chunk);
      });
    }
    child.on('error', (error) => resolve({ code: 1, text: `${command}: ${error.message}` }));
    child.on('close', (code) => resolve({ code: code ?? 1, text }));
  });
}

/** A part that is one yes or no. */
function single(name, command, args) {
  return {
    name,
    async run() {
      const { code } = await run(command, args);
      return { passed: code === 0 ? 1 : 0, failed: code === 0 ? 0 : 1, skipped: 0 };
    },
  };
}

function npmScript(name) {
  return single(`npm run ${name}`, 'npm', ['run', '--silent', name]);
}

/** A doctest executable ends with `test cases: n | n passed | n failed | n skipped`. */
function doctest(name, executable) {
  const path = join(root, 'build', 'native', executable);
  return {
    name,
    async run() {
      if (!existsSync(path)) {
        console.error(`${path} is missing: build it with "npm run build:native"`);
        return { passed: 0, failed: 1, skipped: 0 };
      }
      const { code, text } = await run(path, ['--no-colors=true']);
      const counts = /test cases:\s*(\d+)\s*\|\s*(\d+) passed\s*\|\s*(\d+) failed\s*\|\s*(\d+) skipped/.exec(text);
      if (counts === null) return { passed: 0, failed: 1, skipped: 0 };
      const [, , passed, failed, skipped] = counts.map(Number);
      return { passed, failed: code !== 0 && failed === 0 ? 1 : failed, skipped };
    },
  };
}

function vitestProject(project) {
  return {
    name: `vitest ${project}`,
    async run() {
      const report = join(reports, `${project}.json`);
      const vitest = join(root, 'node_modules', 'vitest', 'vitest.mjs');
      const { code } = await run(process.execPath, [
        vitest,
        'run',
        ...['--project', project, '--reporter=default', '--reporter=json', `--outputFile.json=${report}`],
      ]);
      if (!existsSync(report)) return { passed: 0, failed: 1, skipped: 0 };
      const { numPassedTests, numFailedTests, numPendingTests, numTodoTests } = JSON.parse(
        readFileSync(report, 'utf8'),
      );
      // A file that fails to load, or an unhandled error, fails the run without failing a test.
      const failed = code !== 0 && numFailedTests === 0 ? 1 : numFailedTests;
      return { passed: numPassedTests, failed, skipped: numPendingTests + numTodoTests };
    },
  };
}

const parts = [
  npmScript('check:format'),
  npmScript('check:lint'),
  npmScript('check:types'),
  npmScript('check:proto'),
  doctest('native tests', 'native_tests'),
  doctest('CUDA kernels, emulated', 'cuda_emulation_tests'),
  vitestProject('unit'),
  vitestProject('e2e'),
];

const total = { passed: 0, failed: 0, skipped: 0 };
const lines = [];
for (const part of parts) {
  console.log(`\n== ${part.name}`);
  const startedMs = Date.now();
  const result = await part.run();
  for (const key of Object.keys(total)) total[key] += result[key];
  const seconds = ((Date.now() - startedMs) / 1000).toFixed(1);
  lines.push(
    `${result.failed === 0 ? 'ok  ' : 'FAIL'} ${part.name.padEnd(24)} ${result.passed} passed, ${result.failed} failed` +
      `${result.skipped > 0 ? `, ${result.skipped} skipped` : ''} (${seconds} s)`,
  );
}
rmSync(reports, { recursive: true, force: true });

console.log(`\n${lines.join('\n')}`);
const skipped = total.skipped > 0 ? `, ${total.skipped} skipped` : '';
console.log(`${total.passed} passed, ${total.failed} failed${skipped}`);
process.exit(total.failed === 0 ? 0 : 1);
