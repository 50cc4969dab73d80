/**
 * What the store holds and who refers to it: the basis of garbage collection, of `usage` and of the check of every object.
 *
 * 1. A run's files (plan, result, incidents) name objects by digest: whatever looks like one counts as named. A job's key looks
 *    like one too, and names nothing.
 * 2. References are read before objects are listed: what is written in between looks unreferenced only where it is young.
 */
import type { Digest } from '../../workflows/contract.js';
import type { Amount, StoreCheck, StoreUsage } from './artifact-store.js';
import type { Checkpoints } from './checkpoints.js';
import { CorruptArtifactError } from './errors.js';
import type { JobResults } from './job-results.js';
import type { ObjectSpace, RunSpace } from './store-parts.js';

/** Digest to what names it. */
type Names = ReadonlyMap<Digest, string>;

export interface References {
  jobResults: Names;
  checkpoints: Names;
  /** By run id. */
  runs: ReadonlyMap<string, Names>;
}

export interface InventoryParts {
  objects: ObjectSpace;
  jobs: JobResults;
  checkpoints: Checkpoints;
  runs: RunSpace;
}

export class Inventory {
  readonly #parts: InventoryParts;

  constructor(parts: InventoryParts) {
    this.#parts = parts;
  }

  async references(): Promise<References> {
    const { jobs, checkpoints, runs } = this.#parts;
    const jobResults = new Map<Digest, string>();
    for (const key of await jobs.keys()) {
      for (const digest of await jobs.references(key)) jobResults.set(digest, `job ${key}`);
    }
    const ofCheckpoints = new Map<Digest, string>();
    for (const key of await checkpoints.jobKeys()) {
      for (const pointer of await checkpoints.list(key)) {
        const name = `checkpoint of ${key} at step ${String(pointer.step)}`;
        for (const digest of await checkpoints.references(pointer)) ofCheckpoints.set(digest, name);
      }
    }
    const ofRuns = new Map<string, Names>();
    for (const run of await runs.list()) {
      const names = new Map<Digest, string>();
      for (const file of await runs.files(run)) {
        const text = (await runs.readFile(run, file))?.toString('latin1') ?? '';
        for (const [digest] of text.matchAll(/\b[0-9a-f]{64}\b/g)) names.set(digest, `${file} of run ${run}`);
      }
      ofRuns.set(run, names);
    }
    return { jobResults, checkpoints: ofCheckpoints, runs: ofRuns };
  }

  async usage(): Promise<StoreUsage> {
    const { jobResults, checkpoints, runs } = await this.references();
    const nothing = (): Amount => ({ objects: 0, bytes: 0 });
    const usage: StoreUsage = {
      ...{ all: nothing(), jobResults: nothing(), checkpoints: nothing(), unreferenced: nothing() },
      runs: Object.fromEntries([...runs.keys()].map((run) => [run, nothing()])),
    };
    const add = (to: Amount | undefined, bytes: number): void => {
      if (to === undefined) return;
      to.objects += 1;
      to.bytes += bytes;
    };
    for await (const { digest, bytes } of this.#parts.objects.list()) {
      add(usage.all, bytes);
      const ofRuns = [...runs].filter(([, names]) => names.has(digest)).map(([run]) => run);
      if (jobResults.has(digest)) add(usage.jobResults, bytes);
      if (checkpoints.has(digest)) add(usage.checkpoints, bytes);
      for (const run of ofRuns) add(usage.runs[run], bytes);
      if (!jobResults.has(digest) && !checkpoints.has(digest) && ofRuns.length === 0) add(usage.unreferenced, bytes);
    }
    return usage;
  }

  async check(onProgress: (checked: Amount) => void): Promise<StoreCheck> {
    const { jobResults, checkpoints } = await this.references();
    const missing = new Map([...jobResults, ...checkpoints]);
    const check: StoreCheck = { objects: 0, bytes: 0, damaged: [], missing: [] };
    for await (const { digest, bytes } of this.#parts.objects.list()) {
      missing.delete(digest);
      try {
        await this.#parts.objects.verify(digest);
      } catch (error) {
        if (!(error instanceof CorruptArtifactError)) throw error;
        check.damaged.push({ digest, message: error.message });
      }
      check.objects += 1;
      check.bytes += bytes;
      onProgress(check);
    }
    check.missing = [...missing].map(([digest, namedBy]) => ({ digest, namedBy }));
    return check;
  }
}
