/**
 * `jobs/<key>.json`: the one result of each job key, created exclusively.
 *
 * 1. A second, equal result is accepted; a different one is a broken promise of determinism.
 * 2. A record that is damaged, or whose outputs are, is set aside so that the job can run and commit again.
 */
import type { JobResult } from '../../workflows/contract.js';
import type { StoreWarning } from './artifact-store.js';
import { CorruptArtifactError, NondeterminismError, StoreUnavailableError } from './errors.js';
import { canonicalJson, isDigest } from './job-key.js';
import { seal, unseal } from './sealed-record.js';
import type { ObjectSpace, RecordSpace } from './store-parts.js';

const FOLDER = 'jobs';

export interface StorePlace {
  objects: ObjectSpace;
  records: RecordSpace;
  onWarning: (warning: StoreWarning) => void;
}

const CONTRADICTIONS_MAX = 20;

export class JobResults {
  readonly #objects: ObjectSpace;
  readonly #records: RecordSpace;
  readonly #warn: (warning: StoreWarning) => void;

  constructor({ objects, records, onWarning }: StorePlace) {
    this.#objects = objects;
    this.#records = records;
    this.#warn = onWarning;
  }

  async get(key: string): Promise<JobResult | null> {
    const stored = await this.#read(key);
    if (stored === null) return null;
    if (stored === 'damaged') return this.#setAside(key, 'the record is damaged');
    for (const [name, digest] of Object.entries(stored.outputs)) {
      try {
        await this.#objects.verify(digest);
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
    for (let tries = 0; ; tries++) {
      if (await this.#records.create(nameOf(key), seal(result))) return;
      if (tries === CONTRADICTIONS_MAX) throw contradiction(key);
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
    const names = await this.#records.names(FOLDER);
    return names.flatMap((name) => (name.endsWith('.json') && isDigest(name.slice(0, -5)) ? [name.slice(0, -5)] : []));
  }

  /** Digests that a record names; none when it is damaged. */
  async references(key: string): Promise<string[]> {
    const stored = await this.#read(key);
    return stored === null || stored === 'damaged' ? [] : Object.values(stored.outputs);
  }

  async #read(key: string): Promise<JobResult | 'damaged' | null> {
    const text = await this.#records.read(nameOf(key));
    if (text === null) return null;
    const record = unseal(text) as Partial<JobResult> | null | undefined;
    const whole =
      record?.key === key &&
      typeof record.outputs === 'object' &&
      typeof record.summary === 'object' &&
      Object.values(record.outputs).every(isDigest);
    return whole ? (record as JobResult) : 'damaged';
  }

  async #setAside(key: string, why: string): Promise<null> {
    await this.#records.setAside(nameOf(key));
    this.#warn({ subject: `job ${key}`, message: `set aside, to be run again: ${why}` });
    return null;
  }
}

function nameOf(key: string): string {
  if (!isDigest(key)) throw new TypeError(`expected a job key (SHA-256 in hex), got "${String(key)}"`);
  return `${FOLDER}/${key}.json`;
}

/** Others may set a damaged record aside or make it again meanwhile, but not for ever. */
function contradiction(key: string): StoreUnavailableError {
  const cause = new Error(`job ${key}: the record is there for whoever makes it, and missing for whoever reads it`);
  return new StoreUnavailableError({ path: nameOf(key), code: 'EIO', cause });
}
