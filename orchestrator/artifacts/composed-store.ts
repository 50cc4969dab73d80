/**
 * The artifact store over its parts: what is the same for a folder and for a bucket. See `artifact-store.ts` for the promises.
 */
import type { Digest, Json, JobResult, JsonObject } from '../../workflows/contract.js';
import type {
  Amount,
  ArtifactStore,
  CheckpointManifest,
  CheckpointRef,
  CheckpointState,
  EventPage,
  GarbageLimits,
  StoreCheck,
  StoreUsage,
  StoreWarning,
} from './artifact-store.js';
import { Checkpoints } from './checkpoints.js';
import { CorruptArtifactError } from './errors.js';
import { canonicalJson } from './job-key.js';
import { Inventory } from './inventory.js';
import { JobResults } from './job-results.js';
import type { ObjectSpace, RecordSpace, RunSpace, StoreParts } from './store-parts.js';

export class ComposedArtifactStore implements ArtifactStore {
  readonly url: string;
  readonly #objects: ObjectSpace;
  readonly #records: RecordSpace;
  readonly #runs: RunSpace;
  readonly #jobs: JobResults;
  readonly #checkpoints: Checkpoints;
  readonly #inventory: Inventory;

  constructor({ url, objects, records, runs }: StoreParts, onWarning: (warning: StoreWarning) => void) {
    this.url = url;
    this.#objects = objects;
    this.#records = records;
    this.#runs = runs;
    this.#jobs = new JobResults({ objects, records, onWarning });
    this.#checkpoints = new Checkpoints({ objects, records, onWarning });
    this.#inventory = new Inventory({ objects, jobs: this.#jobs, checkpoints: this.#checkpoints, runs });
  }

  probe(): Promise<void> {
    return this.#records.probe();
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

  releasePaths(digests: readonly Digest[]): Promise<void> {
    return this.#objects.release(digests);
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

  putUnlistedCheckpoint(jobKey: string, step: number, dir: string): Promise<CheckpointRef> {
    return this.#checkpoints.putUnlisted({ jobKey, step, dir });
  }

  latestCheckpoint(jobKey: string): Promise<CheckpointRef | null> {
    return this.#checkpoints.latest(jobKey);
  }

  listCheckpoints(jobKey: string): Promise<{ step: number; manifestDigest: Digest }[]> {
    return this.#checkpoints.list(jobKey);
  }

  inspectCheckpoints(jobKey: string): Promise<CheckpointState[]> {
    return this.#checkpoints.inspect(jobKey);
  }

  restoreCheckpoint(manifestDigest: Digest, targetDir: string): Promise<CheckpointManifest> {
    return this.#checkpoints.restore(manifestDigest, targetDir);
  }

  pruneCheckpoints(jobKey: string, keep: number): Promise<number> {
    return this.#checkpoints.prune(jobKey, keep);
  }

  runAddress(runId: string): string {
    return this.#runs.address(runId);
  }

  writeRunFile(runId: string, name: string, bytes: string | Uint8Array): Promise<string> {
    return this.#runs.writeFile(runId, name, bytes);
  }

  readRunFile(runId: string, name: string): Promise<Buffer | null> {
    return this.#runs.readFile(runId, name);
  }

  listRunFiles(runId: string): Promise<string[]> {
    return this.#runs.files(runId);
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

  readRunEventsAfter(runId: string, cursor: string | null): Promise<EventPage> {
    return this.#runs.readEventsAfter(runId, cursor);
  }

  async collectGarbage(limits: GarbageLimits): Promise<Amount> {
    const { jobResults, checkpoints, runs } = await this.#inventory.references();
    const keep = new Set([jobResults, checkpoints, ...runs.values()].flatMap((names) => [...names.keys()]));
    return this.#objects.sweep(keep, limits);
  }

  usage(): Promise<StoreUsage> {
    return this.#inventory.usage();
  }

  checkObjects(onProgress: (checked: Amount) => void = () => undefined): Promise<StoreCheck> {
    return this.#inventory.check(onProgress);
  }
}
