/**
 * The disk under a file store, seen from outside the program: small enough to fill, its files open to damage, and checked
 * byte for byte at the end.
 *
 * 1. Nothing here goes through the store's own code: it would be checked by what it is to check.
 * 2. A disk of its own (tmpfs) needs root; `diskMissing` says so.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, openSync, readFileSync, readSync, statSync, truncateSync, writeSync } from 'node:fs';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';

import type { DamagedPiece } from './schedule.js';

/** A few times what a run leaves (some 80 MB with frequent checkpoints), so that only ballast fills it. */
const DISK_BYTES = 320 * 1024 * 1024;
const BALLAST = '.ballast';
const COMMAND_TIMEOUT_MS = 20_000;

export function diskMissing(): string | null {
  return process.getuid?.() === 0 ? null : 'a small disk of its own (tmpfs) needs root';
}

export class StoreDisk {
  /** Files that were damaged here, and need not be whole at the end. */
  readonly damaged = new Set<string>();
  readonly #mounted: boolean;

  private constructor(
    readonly folder: string,
    mounted: boolean,
  ) {
    this.#mounted = mounted;
  }

  static async mount(folder: string): Promise<StoreDisk> {
    await mkdir(folder, { recursive: true });
    const canMount = diskMissing() === null;
    if (canMount) run('mount', ['-t', 'tmpfs', '-o', `size=${String(DISK_BYTES)},mode=0700`, 'tmpfs', folder]);
    return new StoreDisk(folder, canMount);
  }

  unmount(): void {
    if (this.#mounted) run('umount', ['-l', this.folder]);
  }

  /** Fills the disk to its last byte. */
  fill(): void {
    if (!this.#mounted) throw new Error('expected a disk of its own to fill, this one is shared');
    const file = openSync(join(this.folder, BALLAST), 'w');
    try {
      for (const size of [1 << 20, 4096, 1]) {
        const chunk = Buffer.alloc(size);
        try {
          while (writeSync(file, chunk) === size);
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
        }
      }
    } finally {
      closeSync(file);
    }
  }

  async free(): Promise<void> {
    await rm(join(this.folder, BALLAST), { force: true });
  }

  /** As new: no result that would answer the next run, and none of its damage. */
  async empty(): Promise<void> {
    for (const name of await readdir(this.folder)) await rm(join(this.folder, name), { recursive: true, force: true });
    this.damaged.clear();
  }

  /** Flips a byte in the middle of a file, or cuts its second half off; answers which, null when there is no such file yet. */
  async damage(piece: DamagedPiece, how: 'flip' | 'truncate', pick: number): Promise<string | null> {
    const candidates = await this.#candidates(piece);
    const path = candidates[Math.floor(pick * candidates.length)];
    if (path === undefined) return null;
    const middle = Math.floor(statSync(path).size / 2);
    if (how === 'truncate') truncateSync(path, middle);
    else flipByte(path, middle);
    this.damaged.add(basename(path));
    return path.slice(this.folder.length + 1);
  }

  /** What is wrong: objects that do not hash to their names, records that name objects which are not there. */
  async faultsFound(): Promise<string[]> {
    const found: string[] = [];
    const objects = new Set(await names(join(this.folder, 'objects')));
    for (const name of objects) {
      if (!/^[0-9a-f]{64}$/.test(name) || this.damaged.has(name)) continue;
      if (sha256Of(join(this.folder, 'objects', name)) !== name)
        found.push(`object ${name}: other bytes than its name says`);
    }
    for (const name of await names(join(this.folder, 'jobs'))) {
      if (!name.endsWith('.json') || this.damaged.has(name)) continue;
      for (const digest of digestsIn(join(this.folder, 'jobs', name), 'outputs')) {
        if (!objects.has(digest) && !this.damaged.has(digest)) found.push(`job record ${name}: no object ${digest}`);
      }
    }
    return found;
  }

  async #candidates(piece: DamagedPiece): Promise<string[]> {
    const jobs = (await paths(join(this.folder, 'jobs'))).filter((path) => path.endsWith('.json'));
    if (piece === 'job_record') return jobs;
    if (piece === 'job_output') return this.#objects(jobs.flatMap((path) => digestsIn(path, 'outputs')));
    const pointers: string[] = [];
    for (const key of await names(join(this.folder, 'checkpoints'))) {
      pointers.push(...(await paths(join(this.folder, 'checkpoints', key))).filter((path) => path.endsWith('.json')));
    }
    // The newest: that is the one that a restart reads first.
    pointers.sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs);
    const newest = pointers.slice(0, 1);
    if (piece === 'checkpoint_pointer') return newest;
    const manifests = await this.#objects(newest.flatMap((path) => digestsIn(path, 'manifestDigest')));
    return this.#objects(manifests.flatMap((path) => digestsIn(path, 'files')));
  }

  async #objects(digests: string[]): Promise<string[]> {
    const present = new Set(await names(join(this.folder, 'objects')));
    return [...new Set(digests)]
      .filter((digest) => present.has(digest))
      .sort()
      .map((digest) => join(this.folder, 'objects', digest));
  }
}

/** Digests below the field, wherever the record keeps it. */
function digestsIn(path: string, field: string): string[] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(readFileSync(path, 'utf8'));
  } catch {
    return [];
  }
  const record = parsed as Record<string, unknown>;
  const value = ((record['record'] ?? record) as Record<string, unknown>)[field];
  return [...JSON.stringify(value ?? '').matchAll(/[0-9a-f]{64}/g)].map(([digest]) => digest);
}

function flipByte(path: string, position: number): void {
  const file = openSync(path, 'r+');
  try {
    const byte = Buffer.alloc(1);
    readSync(file, byte, 0, 1, position);
    byte[0] = (byte[0] ?? 0) ^ 0x10;
    writeSync(file, byte, 0, 1, position);
  } finally {
    closeSync(file);
  }
}

function sha256Of(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}

async function names(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).sort();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

async function paths(folder: string): Promise<string[]> {
  return (await names(folder)).filter((name) => !name.startsWith('.')).map((name) => join(folder, name));
}

function run(command: string, args: string[]): void {
  execFileSync(command, args, { stdio: 'pipe', timeout: COMMAND_TIMEOUT_MS });
}
