/** The artifact store's front door: everything that others import from this folder, besides job keys. */
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

import type { ArtifactStore, StoreOptions } from './artifact-store.js';
import { StoreAddressError } from './errors.js';
import { FileArtifactStore } from './file-store.js';

export type { ArtifactStore, CheckpointManifest, CheckpointRef, StoreOptions, StoreWarning } from './artifact-store.js';
export { CorruptArtifactError, NondeterminismError, StoreAddressError, StoreUnavailableError } from './errors.js';
export { FileArtifactStore } from './file-store.js';

/** Opens `file:///folder` or a plain path. The folder is made at the first write. */
export function openStore(url: string, options: StoreOptions = {}): ArtifactStore {
  const scheme = /^([A-Za-z][A-Za-z0-9+.-]*):\/\//.exec(url)?.[1]?.toLowerCase();
  if (url === '') throw new StoreAddressError('artifact store: expected file:///folder or a path, got an empty string');
  if (scheme === undefined) return new FileArtifactStore(resolve(url), options);
  if (scheme !== 'file') {
    const later = scheme === 's3' ? '; s3:// comes later' : '';
    throw new StoreAddressError(`artifact store: expected file:///folder or a path, got "${url}"${later}`);
  }
  try {
    return new FileArtifactStore(fileURLToPath(url), options);
  } catch (error) {
    throw new StoreAddressError(`artifact store: expected file:///absolute/folder, got "${url}"`, { cause: error });
  }
}
