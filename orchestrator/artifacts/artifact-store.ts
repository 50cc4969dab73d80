/**
 * The artifact store as the rest of the program sees it. Its promises, which the suite
 * `artifact-store-contract.ts` holds every implementation to:
 *
 * 1. Whatever is returned was verified: the bytes have the SHA-256 that names them. Damage is reported, moved aside and
 *    can be rebuilt by putting the same bytes again.
 * 2. Nothing half-written ever has its final name; what refers to others is written last.
 * 3. A job key has one result and a checkpoint step one content, for ever; a second, different one is refused.
 */
import type { Digest, Json, JobResult, JsonObject } from '../../workflows/contract.js';

export interface CheckpointRef {
  step: number;
  manifestDigest: Digest;
  /** Size of all files together. */
  bytes: number;
}

export interface CheckpointManifest {
  /** Path below the checkpoint's folder (with `/`) to digest. */
  files: Record<string, Digest>;
  step: number;
  jobKey: string;
}

/** A listed checkpoint of which every byte was looked at. */
export interface CheckpointState {
  step: number;
  /** Null when the pointer cannot be read. */
  manifestDigest: Digest | null;
  /** What is wrong with it; null: nothing. */
  damage: string | null;
}

/** Damage that the store found and worked around. */
export interface StoreWarning {
  /** What is damaged: `job <key>`, `checkpoint of <key> at step <n>`, `object <digest>`, `events of run <id>`. */
  subject: string;
  message: string;
}

/** Events that followed a cursor. */
export interface EventPage {
  events: JsonObject[];
  /** Where the next read goes on; belongs to this store and run. */
  cursor: string;
}

export interface Amount {
  objects: number;
  bytes: number;
}

export interface GarbageLimits {
  /** Younger objects stay: a job's outputs are written before the record that names them. */
  olderThanSeconds: number;
  /** Nothing is removed, only counted. */
  dryRun?: boolean;
}

/** What the store holds; an object that several refer to counts for each of them. */
export interface StoreUsage {
  all: Amount;
  jobResults: Amount;
  checkpoints: Amount;
  /** Nothing refers to them. */
  unreferenced: Amount;
  /** By run id, what its files name: inputs, and the results of its jobs. */
  runs: Record<string, Amount>;
}

export interface StoreCheck extends Amount {
  /** Moved aside; what refers to them is made again when it is next needed. */
  damaged: { digest: Digest; message: string }[];
  /** Named by a job's result or by a checkpoint, and not there. */
  missing: { digest: Digest; namedBy: string }[];
}

export interface StoreOptions {
  onWarning?: (warning: StoreWarning) => void;
}

export interface ArtifactStore {
  /** Address that `openStore` opens again. */
  readonly url: string;

  /**
   * Writes something small (a folder: 1 MiB), reads it back and removes it. StoreUnavailableError says what is wrong when the
   * store cannot be used: full, forbidden, not there, not reachable.
   */
  probe(): Promise<void>;

  /** Copies a file in. Idempotent; heals a damaged object of the same content. */
  putFile(path: string): Promise<Digest>;
  putBytes(bytes: Uint8Array): Promise<Digest>;
  /** Stores the canonical JSON of `value`. */
  putJson(value: Json | JsonObject): Promise<Digest>;
  /** Whether an object of this name is there; says nothing about its bytes. */
  has(digest: Digest): Promise<boolean>;
  /**
   * Path of a verified local file, to be read only; a remote store answers a local copy that stays until it is released or
   * this process ends. CorruptArtifactError when it is missing or damaged.
   */
  localPath(digest: Digest): Promise<string>;
  /** Takes one `localPath` of each back: the path is no longer read, and a local copy may make room for others. */
  releasePaths(digests: readonly Digest[]): Promise<void>;
  readBytes(digest: Digest): Promise<Buffer>;
  readJson(digest: Digest): Promise<Json>;

  /** Committed result, all outputs verified. Null (after a warning) when it or an output is damaged or missing. */
  getJobResult(key: string): Promise<JobResult | null>;
  /** First result of a key. An equal one is accepted again; a different one is a NondeterminismError. */
  commitJobResult(result: JobResult): Promise<void>;

  /** Stores every file below `dir`, then the manifest, then the pointer. Idempotent. */
  putCheckpoint(jobKey: string, step: number, dir: string): Promise<CheckpointRef>;
  /** Stores files and manifest alike, but no pointer: nothing goes on from it, and `collectGarbage` takes it in time. */
  putUnlistedCheckpoint(jobKey: string, step: number, dir: string): Promise<CheckpointRef>;
  /** Newest checkpoint of which every byte was verified; damaged ones are skipped with a warning. */
  latestCheckpoint(jobKey: string): Promise<CheckpointRef | null>;
  /** Checkpoints as they are listed, oldest first, unverified. */
  listCheckpoints(jobKey: string): Promise<{ step: number; manifestDigest: Digest }[]>;
  /** All checkpoints, oldest first, each verified; damaged ones are told, and stay listed. */
  inspectCheckpoints(jobKey: string): Promise<CheckpointState[]>;
  /** Writes the checkpoint's files into `targetDir`, which must be empty or absent. */
  restoreCheckpoint(manifestDigest: Digest, targetDir: string): Promise<CheckpointManifest>;
  /** Keeps the newest `keep` checkpoints; answers how many were dropped. Objects go with `collectGarbage`. */
  pruneCheckpoints(jobKey: string, keep: number): Promise<number>;

  /** Where a run's own files are, for people: a folder, or an address below the store's. */
  runAddress(runId: string): string;
  /** Replaces a file of the run whole; answers its address. */
  writeRunFile(runId: string, name: string, bytes: string | Uint8Array): Promise<string>;
  /** Null when there is no such file. */
  readRunFile(runId: string, name: string): Promise<Buffer | null>;
  /** Names of the run's files, those of its events too. */
  listRunFiles(runId: string): Promise<string[]>;
  listRuns(): Promise<string[]>;
  /** Appends events; those of one call stay together and keep their order. */
  appendRunEvents(runId: string, events: readonly JsonObject[]): Promise<void>;
  /** All events; a line cut short by a crash is left out with a warning. */
  readRunEvents(runId: string): Promise<JsonObject[]>;
  /** Events after a cursor (null: from the first on), to follow a run: what is still being written comes with a later call. */
  readRunEventsAfter(runId: string, cursor: string | null): Promise<EventPage>;

  /** Removes objects that nothing refers to and that are old enough; answers what was, or with `dryRun` what would be. */
  collectGarbage(limits: GarbageLimits): Promise<Amount>;
  usage(): Promise<StoreUsage>;
  /** Hashes every object, and looks for each that a job's result or a checkpoint names. */
  checkObjects(onProgress?: (checked: Amount) => void): Promise<StoreCheck>;
}
