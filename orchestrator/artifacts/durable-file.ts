/**
 * Files that are whole or absent: written under a temporary name beside their place, synced, then renamed or linked.
 *
 * 1. A crash at any point leaves the old file, the new one, or a stray `.tmp-` file; never a part under the final name.
 * 2. A failed write leaves no temporary file behind.
 */
import { createHash, randomBytes } from 'node:crypto';
import { link, mkdir, open, rename, unlink, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

import type { Digest } from '../../workflows/contract.js';
import { asStoreError } from './errors.js';

export const TEMPORARY_PREFIX = '.tmp-';
const CHUNK_BYTES = 1 << 20;

/** Fills a new temporary file in `folder`, syncs it, and hands its path to `place`, which moves it to its name. */
async function viaTemporary<T>(
  folder: string,
  fill: (file: FileHandle) => Promise<T>,
  place: (temporary: string, filled: T) => Promise<void>,
): Promise<T> {
  const temporary = join(folder, `${TEMPORARY_PREFIX}${String(process.pid)}-${randomBytes(8).toString('hex')}`);
  try {
    await mkdir(folder, { recursive: true });
    const file = await open(temporary, 'wx');
    let filled: T;
    try {
      filled = await fill(file);
      await file.sync();
    } finally {
      await file.close();
    }
    await place(temporary, filled);
    await syncFolder(folder);
    return filled;
  } catch (error) {
    await unlink(temporary).catch(() => undefined);
    throw asStoreError(error, folder);
  }
}

/** Replaces the file at `path` whole. */
export async function replaceFile(path: string, bytes: string | Uint8Array): Promise<void> {
  await viaTemporary(
    dirname(path),
    (file) => file.writeFile(bytes),
    (temporary) => rename(temporary, path),
  );
}

/** Makes the file at `path` unless there is one; answers whether it was made. */
export async function createFile(path: string, bytes: string | Uint8Array): Promise<boolean> {
  let made = true;
  await viaTemporary(
    dirname(path),
    (file) => file.writeFile(bytes),
    async (temporary) => {
      // link() fails on an existing name, rename() would replace it.
      await link(temporary, path).catch((error: unknown) => {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
        made = false;
      });
      await unlink(temporary);
    },
  );
  return made;
}

export interface CopyOptions {
  source: FileHandle | Uint8Array | AsyncIterable<Uint8Array>;
  /** Same file system as the destination. */
  folder: string;
  /** Final path for the digest of what was written. Throws to refuse it: nothing is left behind then. */
  pathOf: (digest: Digest) => string;
}

/** Copies and hashes in one pass, so that the name is that of the bytes written even if the source changes meanwhile. */
export async function copyByDigest({ source, folder, pathOf }: CopyOptions): Promise<Digest> {
  return viaTemporary(
    folder,
    async (target) => {
      if (source instanceof Uint8Array) {
        await target.writeFile(source);
        return createHash('sha256').update(source).digest('hex');
      }
      const write = (chunk: Uint8Array): Promise<void> => target.writeFile(chunk);
      return Symbol.asyncIterator in source ? hashStream(source, write) : hashChunks(source, write);
    },
    (temporary, digest) => rename(temporary, pathOf(digest)),
  );
}

/** SHA-256 of an open file from its beginning; `sink` sees each chunk before the next is read. */
export async function hashChunks(file: FileHandle, sink?: (chunk: Uint8Array) => Promise<void>): Promise<Digest> {
  const hash = createHash('sha256');
  const buffer = Buffer.allocUnsafe(CHUNK_BYTES);
  for (let position = 0; ;) {
    const { bytesRead } = await file.read(buffer, 0, CHUNK_BYTES, position);
    if (bytesRead === 0) return hash.digest('hex');
    position += bytesRead;
    const chunk = buffer.subarray(0, bytesRead);
    hash.update(chunk);
    await sink?.(chunk);
  }
}

/** SHA-256 of a stream; `sink` sees each chunk before the next is asked for. */
export async function hashStream(
  stream: AsyncIterable<Uint8Array>,
  sink?: (chunk: Uint8Array) => Promise<void>,
): Promise<Digest> {
  const hash = createHash('sha256');
  for await (const chunk of stream) {
    hash.update(chunk);
    await sink?.(chunk);
  }
  return hash.digest('hex');
}

/** Moves a damaged file to the folder of such; answers its new path, null when another process was faster. */
export async function moveAside(path: string, damagedFolder: string): Promise<string | null> {
  const target = join(damagedFolder, `${basename(path)}.${String(Date.now())}`);
  try {
    await mkdir(damagedFolder, { recursive: true });
    await rename(path, target);
    return target;
  } catch (error) {
    if (isMissing(error)) return null;
    throw asStoreError(error, path);
  }
}

/** Makes renames and links in the folder survive a power cut. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

export function isMissing(error: unknown): boolean {
  return (error as NodeJS.ErrnoException | null)?.code === 'ENOENT';
}
