// A build of the native side by plain CMake, without Node's headers: for the commands that need another compiler or
// other flags than the product's. Each lies in build/<name>.
import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** Runs a command with its output on the terminal; ends this process when it fails. */
export function must(what, command, args, environment = {}) {
  console.log(`[native] ${what}`);
  const result = spawnSync(command, args, {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, ...environment },
  });
  if (result.error !== undefined) {
    console.error(`[native] ${command} cannot be run (${result.error.message})`);
    process.exit(1);
  }
  if (result.status !== 0) {
    console.error(`[native] ${what}: failed with status ${String(result.status ?? result.signal)}`);
    process.exit(1);
  }
}

/** Configures build/<name> with these CMake options, builds the targets, and returns the folder. */
export function buildPlain(name, options, targets) {
  const out = join(root, 'build', name);
  mkdirSync(out, { recursive: true });
  const definitions = {
    COLLIMATE_GEMM: 'builtin',
    COLLIMATE_CUDA: 'OFF',
    CMAKE_BUILD_TYPE: 'RelWithDebInfo',
    ...options,
  };
  const args = Object.entries(definitions).map(([key, value]) => `-D${key}=${value}`);
  must(`configuring build/${name}`, 'cmake', ['-S', join(root, 'native'), '-B', out, '-G', 'Ninja', ...args]);
  const jobs = process.env.COLLIMATE_BUILD_JOBS ?? String(availableParallelism());
  must(`building ${targets.join(', ')}`, 'cmake', ['--build', out, '--parallel', jobs, '--target', ...targets]);
  return out;
}
