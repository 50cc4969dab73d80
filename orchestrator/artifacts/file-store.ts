/**
 * The artifact store in a folder, local or on a network file system with atomic rename and link:
 * `objects/<sha256>`, `jobs/<key>.json`, `checkpoints/<key>/<step>.json`, `runs/<id>/…`, and `damaged/` for what was
 * found broken. See `artifact-store.ts` for the promises.
 */
import { pathToFileURL } from 'node:url';

import type { Digest, Json, JobResult, JsonObject } from '../../workflows/contract.js';
import type { ArtifactStore, CheckpointManifest, CheckpointRef, StoreOptions } from './artifact-store.js';
import { CheckpointFolder } from './checkpoint-folder.js';
import { CorruptArtifactError } from './errors.js';
import { JobFolder } from './job-folder.js';
import { canonicalJson } from './job-key.js';
import { ObjectFolder } from './object-folder.js';
import { RunFolder } from './run-folder.js';

export class FileArtifactStore implements ArtifactStore {
  readonly url: string;
  readonly #objects: ObjectFolder;
  readonly #jobs: JobFolder;
  readonly #checkpoints: CheckpointFolder;
  readonly #runs: RunFolder;

  /** `root` is an absolute path; it is made at the first write. */
  constructor(root: string, { onWarning = () => undefined }: StoreOptions = {}) {
    this.url = pathToFileURL(root).href;
    this.#objects = new ObjectFolder(root);
    this.#jobs = new JobFolder(root, this.#objects, onWarning);
    this.#checkpoints = new CheckpointFolder(root, this.#objects, onWarning);
    this.#runs = new RunFolder(root, onWarning);
  }

  putFile(path: string): Promise<Digest> {
    return this.#objects.putFile(path);
  }

  putBytes(bytes: Uint8Array): Promise<Digest> {
    return this.#objects.putBytes(bytes);
  }

  putJson(value: Json | JsonObject): Promise<Digest> {
    return this.#objects.putBytes(Buffer.from(canonicalJson(value)));
  }

  has(digest: Digest): Promise<boolean> {
    return this.#objects.has(digest);
  }

  localPath(digest: Digest): Promise<string> {
    return this.#objects.localPath(digest);
  }

  readBytes(digest: Digest): Promise<Buffer> {
    return this.#objects.readBytes(digest);
  }

  async readJson(digest: Digest): Promise<Json> {
    const bytes = await this.#objects.readBytes(digest);
    try {
      return JSON.parse(bytes.toString('utf8')) as Json;
    } catch {
      throw new CorruptArtifactError({ digest, found: 'a file that is not JSON' });
    }
  }

  getJobResult(key: string): Promise<JobResult | null> {
    return this.#jobs.get(key);
  }

  commitJobResult(result: JobResult): Promise<void> {
    return this.#jobs.commit(result);
  }

  putCheckpoint(jobKey: string, step: number, dir: string): Promise<CheckpointRef> {
    return this.#checkpoints.put({ jobKey, step, dir });
  }

  latestCheckpoint(jobKey: string): Promise<CheckpointRef | null> {
    return this.#checkpoints.latest(jobKey);
  }

  listCheckpoints(jobKey: string): Promise<{ step: number; manifestDigest: Digest }[]> {
    return this.#checkpoints.list(jobKey);
  }

  restoreCheckpoint(manifestDigest: Digest, targetDir: string): Promise<CheckpointManifest> {
    return this.#checkpoints.restore(manifestDigest, targetDir);
  }

  pruneCheckpoints(jobKey: string, keep: number): Promise<number> {
    return this.#checkpoints.prune(jobKey, keep);
  }

  runDir(runId: string): string {
    return this.#runs.dir(runId);
  }

  writeRunFile(runId: string, name: string, bytes: string | Uint8Array): Promise<string> {
    return this.#runs.writeFile(runId, name, bytes);
  }

  readRunFile(runId: string, name: string): Promise<Buffer | null> {
    return this.#runs.readFile(runId, name);
  }

  listRuns(): Promise<string[]> {
    return this.#runs.list();
  }

  appendRunEvents(runId: string, events: readonly JsonObject[]): Promise<void> {
    return this.#runs.appendEvents(runId, events);
  }

  readRunEvents(runId: string): Promise<JsonObject[]> {
    return this.#runs.readEvents(runId);
  }

  async collectGarbage({
    olderThanSeconds,
  }: {
    olderThanSeconds: number;
  }): Promise<{ objects: number; bytes: number }> {
    const keep = new Set<Digest>();
    for (const key of await this.#jobs.keys()) for (const digest of await this.#jobs.references(key)) keep.add(digest);
    for (const key of await this.#checkpoints.jobKeys()) {
      for (const pointer of await this.#checkpoints.list(key)) {
        for (const digest of await this.#checkpoints.references(pointer)) keep.add(digest);
      }
    }
    // A run's files (plan, result) name their inputs by digest: whatever looks like one is kept.
    for (const run of await this.#runs.list()) {
      for (const name of await this.#runs.files(run)) {
        const text = (await this.#runs.readFile(run, name))?.toString('latin1') ?? '';
        for (const [digest] of text.matchAll(/\b[0-9a-f]{64}\b/g)) keep.add(digest);
      }
    }
    return this.#objects.sweep(keep, olderThanSeconds);
  }
}
