/** The artifact store's front door: everything that others import from this folder, besides job keys. */
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

import type { ArtifactStore, StoreOptions } from './artifact-store.js';
import { StoreAddressError } from './errors.js';
import { FileArtifactStore } from './file-store.js';
import { parseS3Address } from './s3-address.js';
import { S3ArtifactStore } from './s3-store.js';

export type {
  Amount,
  ArtifactStore,
  CheckpointManifest,
  CheckpointRef,
  StoreCheck,
  StoreOptions,
  StoreUsage,
  StoreWarning,
} from './artifact-store.js';
export { CorruptArtifactError, NondeterminismError, StoreAddressError, StoreUnavailableError } from './errors.js';
export { FileArtifactStore } from './file-store.js';
export { S3ArtifactStore } from './s3-store.js';

const FORMS = 'file:///folder, a path or s3://bucket/prefix';

/** Opens `file:///folder`, a plain path or `s3://bucket/prefix`. Nothing is read or written before the first use. */
export function openStore(url: string, options: StoreOptions = {}): ArtifactStore {
  const scheme = /^([A-Za-z][A-Za-z0-9+.-]*):\/\//.exec(url)?.[1]?.toLowerCase();
  if (url === '') throw new StoreAddressError(`artifact store: expected ${FORMS}, got an empty string`);
  if (scheme === undefined) return new FileArtifactStore(resolve(url), options);
  if (scheme === 's3') return new S3ArtifactStore(parseS3Address(url), options);
  if (scheme !== 'file') throw new StoreAddressError(`artifact store: expected ${FORMS}, got "${scheme}://"`);
  try {
    return new FileArtifactStore(fileURLToPath(url), options);
  } catch (error) {
    throw new StoreAddressError(`artifact store: expected file:///absolute/folder, got "${url}"`, { cause: error });
  }
}
