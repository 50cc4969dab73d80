// Formats the C++ and CUDA sources with the pinned clang-format; --check only reports.
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const native = dirname(fileURLToPath(import.meta.url));
const clangFormat = join(native, '..', 'node_modules', '.bin', 'clang-format');
const files = readdirSync(native, { recursive: true })
  .filter((name) => /\.(h|cc|cu|cuh)$/.test(name))
  .sort()
  .map((name) => join(native, name));
const mode = process.argv.includes('--check') ? ['--dry-run', '--Werror'] : ['-i'];
const result = spawnSync(clangFormat, [...mode, ...files], { stdio: 'inherit' });
if (result.error !== undefined) {
  console.error(`clang-format cannot be run (${result.error.message}); run npm ci`);
  process.exit(1);
}
process.exit(result.status ?? 1);
