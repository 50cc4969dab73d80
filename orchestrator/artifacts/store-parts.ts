/**
 * What a place to keep bytes offers to the artifact store. `job-results.ts`, `checkpoints.ts` and `composed-store.ts` build
 * the store's promises on these three; a folder (`file-store.ts`) and a bucket (`s3-store.ts`) implement them.
 */
import type { Digest, JsonObject } from '../../workflows/contract.js';
import type { Amount, EventPage, GarbageLimits } from './artifact-store.js';

/** `objects/<sha256>`. Everything that hands bytes out throws CorruptArtifactError when they are missing or damaged. */
export interface ObjectSpace {
  putFile(path: string): Promise<Digest>;
  putBytes(bytes: Uint8Array): Promise<Digest>;
  has(digest: Digest): Promise<boolean>;
  /** Size in bytes; 0 when missing. */
  sizeOf(digest: Digest): Promise<number>;
  /** Hashes the stored bytes themselves, never a local copy of them. */
  verify(digest: Digest): Promise<void>;
  localPath(digest: Digest): Promise<string>;
  /** The caller no longer reads what `localPath` gave. */
  release(digests: readonly Digest[]): Promise<void>;
  readBytes(digest: Digest): Promise<Buffer>;
  /** Writes the verified bytes to a path of the caller's own. */
  copyTo(digest: Digest, path: string): Promise<void>;
  /** Every object, in no order. */
  list(): AsyncIterable<{ digest: Digest; bytes: number }>;
  /** Removes objects and left-overs of broken writes older than the limit, except those that `keep` holds. */
  sweep(keep: ReadonlySet<Digest>, limits: GarbageLimits): Promise<Amount>;
}

/** Small files under names such as `jobs/<key>.json`, each whole or absent. */
export interface RecordSpace {
  /** Null when there is none. */
  read(name: string): Promise<string | null>;
  /** Makes the record unless there is one; answers whether it was made. */
  create(name: string, text: string): Promise<boolean>;
  remove(names: readonly string[]): Promise<void>;
  /** Last parts of what is directly below `folder`: records and folders. */
  names(folder: string): Promise<string[]>;
  /** Moves a damaged record to `damaged/`; null when another process was faster. */
  setAside(name: string): Promise<string | null>;
  /** Writes, reads back and removes something, as the store's `probe` promises. */
  probe(): Promise<void>;
}

/** `runs/<id>/`. */
export interface RunSpace {
  address(runId: string): string;
  writeFile(runId: string, name: string, bytes: string | Uint8Array): Promise<string>;
  readFile(runId: string, name: string): Promise<Buffer | null>;
  list(): Promise<string[]>;
  /** Names of the plain files of a run, those of its events too. */
  files(runId: string): Promise<string[]>;
  appendEvents(runId: string, events: readonly JsonObject[]): Promise<void>;
  readEvents(runId: string): Promise<JsonObject[]>;
  readEventsAfter(runId: string, cursor: string | null): Promise<EventPage>;
}

export interface StoreParts {
  url: string;
  objects: ObjectSpace;
  records: RecordSpace;
  runs: RunSpace;
}
