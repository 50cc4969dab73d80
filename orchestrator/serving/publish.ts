/**
 * Publication: a published list (NDJSON) and a catalogue become a new generation, and serving switches to it.
 *
 * 1. Idempotent: a generation that is there undamaged is not written again; publishing the current one changes nothing.
 * 2. An epoch below that of the current publication is refused, so that a late caller cannot undo a newer one.
 * 3. The generation before is kept for `undoPublication`; older ones are removed.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { replaceFile, syncFolder, TEMPORARY_PREFIX } from '../artifacts/durable-file.js';
import { asStoreError } from '../artifacts/errors.js';
import { BadInputError } from '../recommender/domain-job.js';
import { excerpt, parseJson, readLines } from '../recommender/files.js';
import { SafetensorsFile } from '../recommender/safetensors.js';
import {
  currentPath,
  damageOf,
  digestOfFile,
  generationsDir,
  keyOf,
  META_KEY,
  openGeneration,
  readCurrent,
  sealGeneration,
  type CurrentGeneration,
  type Generation,
  type ListRecord,
  type Versions,
} from './generation.js';

export interface PublishRequest {
  servingDir: string;
  /** NDJSON, one line a user: `{"user", "items", "scores", "historyHash"}` (output `published` of job `assemble`). */
  publishedPath: string;
  /** NDJSON, line i = item index i (output `catalogue` of job `ingest`). */
  cataloguePath: string;
  versions: Versions;
  /** Name of the generation: a function of what is published, since an existing one is taken as it is. */
  generation: string;
  /** Fence; left out, the epoch of the current publication is kept. */
  epoch?: number;
  /** `dataset` and `users` of job `ingest`: with them, items of a user's history are filtered at every read. */
  history?: { datasetPath: string; usersPath: string };
}

export class StalePublicationError extends Error {
  override readonly name = 'StalePublicationError';
}

const BATCH_RECORDS = 2000;

export async function publishGeneration(request: PublishRequest): Promise<CurrentGeneration> {
  const { servingDir, generation } = request;
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/.test(generation)) {
    throw new TypeError(`generation name: expected 1 to 128 letters, digits, ".", "_" or "-"; got "${generation}"`);
  }
  refuseStale(readCurrent(servingDir), request);
  const folder = join(generationsDir(servingDir), generation);
  try {
    if ((await damageOf(folder)) !== null) await writeGeneration(folder, request);
    // Read again: writing took a while, and another publication may have come in between.
    const before = readCurrent(servingDir);
    refuseStale(before, request);
    const epoch = request.epoch ?? before?.epoch ?? 0;
    const previous = before?.generation === generation ? before.previous : (before?.generation ?? null);
    const current: CurrentGeneration = { generation, previous, epoch };
    await replaceFile(currentPath(servingDir), `${JSON.stringify(current)}\n`);
    await removeOthers(servingDir, current);
    return current;
  } catch (error) {
    throw asStoreError(error, servingDir);
  }
}

/** Goes back to the generation before; a second call goes forth again. */
export async function undoPublication(servingDir: string): Promise<CurrentGeneration> {
  const before = readCurrent(servingDir);
  if (before === null) throw new Error(`undo: nothing has been published in ${servingDir}`);
  if (before.previous === null) {
    throw new Error(`undo: generation ${before.generation} in ${servingDir} is the first; there is none before it`);
  }
  const current = { generation: before.previous, previous: before.generation, epoch: before.epoch };
  await replaceFile(currentPath(servingDir), `${JSON.stringify(current)}\n`);
  return current;
}

function refuseStale(current: CurrentGeneration | null, { epoch, generation }: PublishRequest): void {
  if (current === null || epoch === undefined || epoch >= current.epoch) return;
  throw new StalePublicationError(
    `publication of ${generation} has the stale epoch ${String(epoch)}; generation ${current.generation} ` +
      `was published with epoch ${String(current.epoch)} and stays`,
  );
}

async function writeGeneration(folder: string, request: PublishRequest): Promise<void> {
  const parent = generationsDir(request.servingDir);
  const temporary = join(parent, `${TEMPORARY_PREFIX}${String(process.pid)}-${randomBytes(6).toString('hex')}`);
  await mkdir(temporary, { recursive: true });
  try {
    const target = openGeneration(temporary, { readOnly: false });
    try {
      await fill(target, request);
      await target.root.flushed;
    } finally {
      await target.root.close();
    }
    await sealGeneration(temporary);
    await moveInto(temporary, folder);
    await syncFolder(parent);
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

async function moveInto(temporary: string, folder: string): Promise<void> {
  try {
    await rename(temporary, folder);
  } catch (error) {
    if (!['ENOTEMPTY', 'EEXIST'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
    // Another caller was faster with the same content, unless what is there is damaged.
    if ((await damageOf(folder)) === null) return;
    await rename(folder, `${temporary}.damaged`);
    await rename(temporary, folder);
    await rm(`${temporary}.damaged`, { recursive: true, force: true });
  }
}

async function fill(target: Generation, request: PublishRequest): Promise<void> {
  const { publishedPath, cataloguePath, versions, generation } = request;
  const itemIds: string[] = [];
  const batch = new Batch();
  for await (const { number, text } of readLines(cataloguePath)) {
    const { item, title } = (parseJson(text) ?? {}) as { item?: unknown; title?: unknown };
    if (typeof item !== 'string' || typeof title !== 'string')
      throw unexpected(cataloguePath, number, '"item" and "title"', text);
    itemIds.push(item);
    await batch.add(target.titles.put(keyOf(item), title));
  }
  const known = new Set(itemIds);
  const seenOf = request.history === undefined ? () => [] : await readHistories(request.history, itemIds);
  let users = 0;
  for await (const { number, text } of readLines(publishedPath)) {
    const { user, record } = parseList(text) ?? {};
    if (user === undefined || record === undefined) {
      throw unexpected(publishedPath, number, '{"user", "items", "scores" of equal length, "historyHash"}', text);
    }
    const stranger = record.items.find((item) => !known.has(item));
    if (stranger !== undefined) throw unexpected(publishedPath, number, 'items of the catalogue', stranger);
    await batch.add(target.lists.put(keyOf(user), { ...record, seen: seenOf(user) }));
    users += 1;
  }
  if (users === 0) throw new BadInputError(`${publishedPath}: expected at least one list, the file is empty`);
  const publishedDigest = await digestOfFile(publishedPath);
  await batch.add(
    target.meta.put(META_KEY, { generation, versions, createdUnixSeconds: Date.now() / 1000, users, publishedDigest }),
  );
  await batch.done();
}

/** Awaits writes in bulk: awaiting each one alone would make a transaction of each. */
class Batch {
  #pending: Promise<boolean>[] = [];

  async add(write: Promise<boolean>): Promise<void> {
    this.#pending.push(write);
    if (this.#pending.length >= BATCH_RECORDS) await this.done();
  }

  async done(): Promise<void> {
    const pending = this.#pending;
    this.#pending = [];
    if (!(await Promise.all(pending)).every(Boolean)) throw new Error('LMDB refused a write');
  }
}

function parseList(text: string): { user: string; record: Omit<ListRecord, 'seen'> } | null {
  const { user, items, scores, historyHash } = (parseJson(text) ?? {}) as Record<string, unknown>;
  if (typeof user !== 'string' || typeof historyHash !== 'string') return null;
  if (!Array.isArray(items) || !Array.isArray(scores) || items.length !== scores.length) return null;
  if (!items.every((item) => typeof item === 'string') || !scores.every((score) => typeof score === 'number'))
    return null;
  return { user, record: { items, scores, historyHash } };
}

/** User id to the distinct item ids of the whole history. */
async function readHistories(
  { datasetPath, usersPath }: { datasetPath: string; usersPath: string },
  itemIds: readonly string[],
): Promise<(user: string) => string[]> {
  const dataset = await SafetensorsFile.open(datasetPath);
  const offsets = dataset.i64('user_offsets', [-1]).data;
  const items = dataset.i32('items', [-1]).data;
  const indexOf = new Map<string, number>();
  for await (const { number, text } of readLines(usersPath)) {
    const { user } = (parseJson(text) ?? {}) as { user?: unknown };
    if (typeof user !== 'string') throw unexpected(usersPath, number, '"user"', text);
    indexOf.set(user, number - 1);
  }
  if (indexOf.size !== offsets.length - 1) {
    throw new BadInputError(
      `${usersPath} has ${String(indexOf.size)} users, ${datasetPath} has ${String(offsets.length - 1)}; expected files of one ingest job`,
    );
  }
  return (user) => {
    const index = indexOf.get(user);
    if (index === undefined) return [];
    const own = [...new Set(items.subarray(offsets[index], offsets[index + 1]))];
    return own.map((item) => {
      const id = itemIds[item];
      if (id === undefined) throw new BadInputError(`${datasetPath}: item ${String(item)} is beyond the catalogue`);
      return id;
    });
  };
}

async function removeOthers(servingDir: string, { generation, previous }: CurrentGeneration): Promise<void> {
  for (const name of await readdir(generationsDir(servingDir))) {
    if (name === generation || name === previous || name.startsWith(TEMPORARY_PREFIX)) continue;
    await rm(join(generationsDir(servingDir), name), { recursive: true, force: true });
  }
}

function unexpected(path: string, line: number, expected: string, text: string): BadInputError {
  return new BadInputError(`${path} line ${String(line)}: expected ${expected}, got ${excerpt(text)}`);
}
