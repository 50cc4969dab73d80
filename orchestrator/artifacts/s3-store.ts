/**
 * The artifact store in a bucket of any S3-compatible server, laid out as in a folder: `objects/<sha256>`, `jobs/<key>.json`,
 * `checkpoints/<key>/<step>.json`, `runs/<id>/…`, `damaged/`. See `artifact-store.ts` for the promises.
 */
import type { StoreOptions } from './artifact-store.js';
import { ComposedArtifactStore } from './composed-store.js';
import { LocalCopies, type LocalCopiesOptions } from './local-copies.js';
import type { CopyLimits } from './s3-aside.js';
import type { S3Address } from './s3-address.js';
import { S3Connection, type S3Limits } from './s3-connection.js';
import { S3Objects } from './s3-objects.js';
import { S3Records } from './s3-records.js';
import { S3Runs } from './s3-runs.js';

export interface S3StoreOptions extends StoreOptions, S3Limits, CopyLimits {
  cache?: LocalCopiesOptions;
  /** Above this size objects go in parts; a server wants at least 5 MiB. */
  partBytes?: number;
}

export class S3ArtifactStore extends ComposedArtifactStore {
  constructor(address: S3Address, options: S3StoreOptions = {}) {
    const { onWarning = () => undefined, cache, ...limits } = options;
    const connection = new S3Connection(address, limits);
    const records = new S3Records(connection);
    const objects = new S3Objects({ ...limits, connection, copies: new LocalCopies(cache) });
    super({ url: address.url, objects, records, runs: new S3Runs({ connection, records, onWarning }) }, onWarning);
  }
}
