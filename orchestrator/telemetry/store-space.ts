/** Room on the file system of the artifact store, as gauges that StoreFull looks at. A bucket has none to tell. */
import { statfs } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

import type { Metrics } from './metrics.js';

const LOOK_INTERVAL_MS = 5_000;

/** Looks now and every few seconds until the returned function is called. A look that fails leaves the last values. */
export function watchStoreSpace(storeUrl: string, metrics: Metrics): () => void {
  if (!storeUrl.startsWith('file:')) return () => undefined;
  const folder = fileURLToPath(storeUrl);
  // One at a time: a network file system that hangs must not be asked again and again.
  let isLooking = false;
  const look = async (): Promise<void> => {
    if (isLooking) return;
    isLooking = true;
    try {
      const { bsize, blocks, bavail } = await statfs(folder);
      metrics.set('collimate_store_size_bytes', {}, blocks * bsize);
      metrics.set('collimate_store_available_bytes', {}, bavail * bsize);
    } catch {
      // The folder comes with the first write.
    } finally {
      isLooking = false;
    }
  };
  void look();
  const timer = setInterval(() => void look(), LOOK_INTERVAL_MS);
  timer.unref();
  return () => {
    clearInterval(timer);
  };
}
