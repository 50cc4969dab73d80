// Builds the native side: the Node addon, collimate-native, native_tests and the benches, in build/native.
//
// 1. Idempotent: configured when there is no build, or when a choice changed; then ninja compiles what is out of date.
// 2. Choices come from the environment: COLLIMATE_GEMM (auto, dnnl, builtin), COLLIMATE_CUDA (AUTO, ON, OFF),
//    COLLIMATE_TESTS (ON, OFF), COLLIMATE_BUILD_JOBS (default: one a core).
// 3. The CUDA compiler is CUDACXX, else the one that deploy/bootstrap has put into .cache/cuda, else what CMake finds.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const out = join(root, 'build', 'native');
const require = createRequire(import.meta.url);
const cmakeJs = join(dirname(require.resolve('cmake-js/package.json')), 'bin', 'cmake-js');

const choices = [
  `--CDCOLLIMATE_GEMM=${process.env.COLLIMATE_GEMM ?? 'auto'}`,
  `--CDCOLLIMATE_CUDA=${process.env.COLLIMATE_CUDA ?? 'AUTO'}`,
  `--CDCOLLIMATE_TESTS=${process.env.COLLIMATE_TESTS ?? 'ON'}`,
];
const nvcc = process.env.CUDACXX ?? cachedCudaCompiler();
if (nvcc !== undefined) process.env.CUDACXX = nvcc;

/** Undefined where there is none: then CMake looks for one. */
function cachedCudaCompiler() {
  const pythons = join(root, '.cache', 'cuda', 'lib');
  if (!existsSync(join(root, '.cache', 'cuda', '.collimate-stamp'))) return undefined;
  return readdirSync(pythons)
    .map((python) => join(pythons, python, 'site-packages', 'nvidia', 'cu13', 'bin', 'nvcc'))
    .find((nvcc) => existsSync(nvcc));
}

const jobs = process.env.COLLIMATE_BUILD_JOBS ?? String(availableParallelism());

function run(step, command, args) {
  console.log(`[native] ${step}`);
  const result = spawnSync(command, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] });
  if (result.error !== undefined) {
    console.error(
      `[native] ${command} cannot be run (${result.error.message}); install cmake, ninja and a C++20 compiler`,
    );
    process.exit(1);
  }
  if (result.status !== 0) {
    console.error(`[native] ${step} failed with status ${String(result.status ?? result.signal)}`);
    process.exit(1);
  }
}

// The package file is part of the stamp: it names the Node-API version and the headers.
const stampFile = join(out, 'configured.json');
const versions = ['cmake-js', 'node-addon-api'].map((name) => require(`${name}/package.json`).version);
const stamp = JSON.stringify({ choices, versions, nvcc: nvcc ?? null, node: process.versions.modules });
const configured =
  existsSync(join(out, 'build.ninja')) && existsSync(stampFile) && readFileSync(stampFile, 'utf8') === stamp;

if (configured) {
  console.log('[native] configured already');
} else {
  mkdirSync(out, { recursive: true });
  run('configuring', process.execPath, [cmakeJs, 'configure', '-d', 'native', '-O', out, '-G', 'Ninja', ...choices]);
  writeFileSync(stampFile, stamp);
}
run(`building with ${jobs} jobs in ${relative(root, out)}`, 'cmake', ['--build', out, '--parallel', jobs]);
console.log('[native] up to date');
