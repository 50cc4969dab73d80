/**
 * `jobs/<key>.json`: the one result of each job key, created exclusively.
 *
 * 1. A second, equal result is accepted; a different one is a broken promise of determinism.
 * 2. A record that is damaged, or whose outputs are, is set aside so that the job can run and commit again.
 */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

import type { JobResult } from '../../workflows/contract.js';
import type { StoreWarning } from './artifact-store.js';
import { createFile, isMissing } from './durable-file.js';
import { asStoreError, CorruptArtifactError, NondeterminismError } from './errors.js';
import { canonicalJson, isDigest } from './job-key.js';
import type { ObjectFolder } from './object-folder.js';
import { seal, unseal } from './sealed-record.js';

export class JobFolder {
  readonly #folder: string;
  readonly #objects: ObjectFolder;
  readonly #warn: (warning: StoreWarning) => void;

  constructor(root: string, objects: ObjectFolder, warn: (warning: StoreWarning) => void) {
    this.#folder = join(root, 'jobs');
    this.#objects = objects;
    this.#warn = warn;
  }

  async get(key: string): Promise<JobResult | null> {
    const stored = await this.#read(key);
    if (stored === null) return null;
    if (stored === 'damaged') return this.#setAside(key, 'the record is damaged');
    for (const [name, digest] of Object.entries(stored.outputs)) {
      try {
        await this.#objects.localPath(digest);
      } catch (error) {
        if (!(error instanceof CorruptArtifactError)) throw error;
        return this.#setAside(key, `output ${name}: ${error.message}`);
      }
    }
    return stored;
  }

  async commit({ key, outputs, summary }: JobResult): Promise<void> {
    const result: JobResult = { key, outputs, summary };
    for (const [name, digest] of Object.entries(outputs)) {
      if (!(await this.#objects.has(digest))) {
        throw new CorruptArtifactError({ digest, found: `nothing (output ${name} of job ${key})` });
      }
    }
    const path = this.#pathOf(key);
    for (;;) {
      if (await createFile(path, seal(result))) return;
      const stored = await this.#read(key);
      if (stored === 'damaged') await this.#setAside(key, 'the record is damaged');
      if (stored === 'damaged' || stored === null) continue;
      const [ours, theirs] = [canonicalJson(result), canonicalJson(stored)];
      if (ours === theirs) return;
      throw new NondeterminismError({ subject: `job ${key}`, stored: theirs, received: ours });
    }
  }

  /** Every key with a record. */
  async keys(): Promise<string[]> {
    const names = await readdir(this.#folder).catch((error: unknown) => {
      if (isMissing(error)) return [];
      throw asStoreError(error, this.#folder);
    });
    return names.flatMap((name) => (name.endsWith('.json') && isDigest(name.slice(0, -5)) ? [name.slice(0, -5)] : []));
  }

  /** Digests that a record names; none when it is damaged. */
  async references(key: string): Promise<string[]> {
    const stored = await this.#read(key);
    return stored === null || stored === 'damaged' ? [] : Object.values(stored.outputs);
  }

  async #read(key: string): Promise<JobResult | 'damaged' | null> {
    const path = this.#pathOf(key);
    let text: string;
    try {
      text = await readFile(path, 'utf8');
    } catch (error) {
      if (isMissing(error)) return null;
      throw asStoreError(error, path);
    }
    const record = unseal(text) as Partial<JobResult> | null | undefined;
    const whole =
      record?.key === key &&
      typeof record.outputs === 'object' &&
      typeof record.summary === 'object' &&
      Object.values(record.outputs).every(isDigest);
    return whole ? (record as JobResult) : 'damaged';
  }

  async #setAside(key: string, why: string): Promise<null> {
    await this.#objects.setAside(this.#pathOf(key));
    this.#warn({ subject: `job ${key}`, message: `set aside, to be run again: ${why}` });
    return null;
  }

  #pathOf(key: string): string {
    if (!isDigest(key)) throw new TypeError(`expected a job key (SHA-256 in hex), got "${String(key)}"`);
    return join(this.#folder, `${key}.json`);
  }
}
