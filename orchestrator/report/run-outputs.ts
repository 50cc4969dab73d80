/** Outputs of a run's jobs, as the report reads them from the store. */
import { type Digest, type Json, type JobResult } from '../../workflows/contract.js';
import { type ArtifactStore } from '../artifacts/store.js';

/** Outputs of a run's jobs by job and name; null where the run has no such output (yet). */
export class RunOutputs {
  constructor(
    private readonly store: ArtifactStore,
    private readonly jobs: Record<string, JobResult>,
  ) {}

  digest(job: string, output: string): Digest | null {
    return this.jobs[job]?.outputs[output] ?? null;
  }

  async json(job: string, output: string): Promise<Json | null> {
    const digest = this.digest(job, output);
    return digest === null ? null : this.store.readJson(digest);
  }

  async read<T>(job: string, output: string, reader: (path: string) => Promise<T>): Promise<T | null> {
    const digest = this.digest(job, output);
    if (digest === null) return null;
    const path = await this.store.localPath(digest);
    try {
      return await reader(path);
    } finally {
      await this.store.releasePaths([digest]);
    }
  }

  /** Names of the jobs that have such an output. */
  jobsWith(output: string): string[] {
    return Object.keys(this.jobs).filter((job) => this.digest(job, output) !== null);
  }
}
