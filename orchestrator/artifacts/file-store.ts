/**
 * The artifact store in a folder, local or on a network file system with atomic rename and link:
 * `objects/<sha256>`, `jobs/<key>.json`, `checkpoints/<key>/<step>.json`, `runs/<id>/…`, and `damaged/` for what was
 * found broken. See `artifact-store.ts` for the promises.
 */
import { pathToFileURL } from 'node:url';

import type { StoreOptions } from './artifact-store.js';
import { ComposedArtifactStore } from './composed-store.js';
import { ObjectFolder } from './object-folder.js';
import { RecordFolder } from './record-folder.js';
import { RunFolder } from './run-folder.js';

export class FileArtifactStore extends ComposedArtifactStore {
  /** `root` is an absolute path; it is made at the first write. */
  constructor(root: string, { onWarning = () => undefined }: StoreOptions = {}) {
    const objects = new ObjectFolder(root);
    const records = new RecordFolder(root);
    super({ url: pathToFileURL(root).href, objects, records, runs: new RunFolder(root, onWarning) }, onWarning);
  }
}
