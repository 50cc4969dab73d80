/**
 * A generation of published lists on disk, and which one is served.
 *
 * `generations/<name>/` is an LMDB environment that is written once and never changed; `CURRENT` is a small JSON file
 * that names the generation being served, the one before it, and the epoch of its publication.
 *
 * 1. A generation has its final name only when it is whole: it is written under `.tmp-…`, closed, then renamed.
 * 2. Readers follow CURRENT, which is replaced by one rename: they see the old lists or the new ones, never a mixture.
 * 3. `SEAL` holds the SHA-256 of `data.mdb`. It is checked before LMDB maps the file, which ends the process on a
 *    damaged one.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { open as openFile, readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { open, type Database, type RootDatabase } from 'lmdb';

import { hashChunks, isMissing, replaceFile } from '../artifacts/durable-file.js';

export interface Versions {
  model: string;
  catalogue: string;
  prompt: string;
}

export interface GenerationMeta {
  generation: string;
  versions: Versions;
  createdUnixSeconds: number;
  users: number;
  /** Digest of the published list that it was made from. */
  publishedDigest: string;
}

/** One user's list, best first. */
export interface ListRecord {
  items: string[];
  scores: number[];
  historyHash: string;
  /** Items of the user's known history, left out at reading; empty when publication was not given the histories. */
  seen: string[];
}

export interface CurrentGeneration {
  generation: string;
  previous: string | null;
  epoch: number;
}

export interface Generation {
  root: RootDatabase<unknown, string>;
  lists: Database<ListRecord, string>;
  titles: Database<string, string>;
  meta: Database<GenerationMeta, string>;
}

export const META_KEY = 'meta';
const KEY_BYTES_MAX = 1000;
const DATA = 'data.mdb';
const SEAL = 'SEAL';

export const generationsDir = (servingDir: string): string => join(servingDir, 'generations');
export const currentPath = (servingDir: string): string => join(servingDir, 'CURRENT');

/** LMDB keys are short; longer outside ids go by their hash, which no id can look like since ids keep their prefix. */
export function keyOf(id: string): string {
  return Buffer.byteLength(id) <= KEY_BYTES_MAX
    ? `id:${id}`
    : `sha256:${createHash('sha256').update(id).digest('hex')}`;
}

export function openGeneration(folder: string, { readOnly }: { readOnly: boolean }): Generation {
  const root = open<unknown, string>({ path: folder, readOnly, maxDbs: 3, noSubdir: false });
  try {
    return {
      root,
      lists: root.openDB<ListRecord, string>({ name: 'lists' }),
      titles: root.openDB<string, string>({ name: 'titles' }),
      meta: root.openDB<GenerationMeta, string>({ name: 'meta' }),
    };
  } catch (error) {
    void root.close();
    throw error;
  }
}

/** Written last, once the environment is closed. */
export async function sealGeneration(folder: string): Promise<void> {
  await replaceFile(join(folder, SEAL), `${await digestOfFile(join(folder, DATA))}\n`);
}

/** What is wrong with the generation's files; null when they are as they were sealed. */
export async function damageOf(folder: string): Promise<string | null> {
  try {
    const sealed = (await readFile(join(folder, SEAL), 'utf8')).trim();
    const actual = await digestOfFile(join(folder, DATA));
    return actual === sealed ? null : `${join(folder, DATA)}: expected the SHA-256 ${sealed}, found ${actual}`;
  } catch (error) {
    if (isMissing(error)) return `${folder}: expected ${DATA} and ${SEAL}, one is missing`;
    throw error;
  }
}

export async function digestOfFile(path: string): Promise<string> {
  const file = await openFile(path, 'r');
  try {
    return await hashChunks(file);
  } finally {
    await file.close();
  }
}

/** Null when nothing has been published. */
export function readCurrent(servingDir: string): CurrentGeneration | null {
  const path = currentPath(servingDir);
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
  try {
    const { generation, previous, epoch } = JSON.parse(text) as CurrentGeneration;
    if (
      typeof generation === 'string' &&
      (previous === null || typeof previous === 'string') &&
      Number.isInteger(epoch)
    ) {
      return { generation, previous, epoch };
    }
  } catch {
    // Reported below like any other content that is not right.
  }
  throw new Error(`${path}: expected {"generation", "previous", "epoch"}, got ${text.slice(0, 80)}; publish again`);
}
