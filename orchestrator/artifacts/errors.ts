/**
 * What the artifact store can fail with. Each error carries the failure cause by which workflows choose a budget and an
 * action, and a message that says what was expected, what came and what to do.
 */
import type { Digest, FailureCause } from '../../workflows/contract.js';

/** Stored bytes that are not what their name says, or are gone. The damaged file has been moved aside already. */
export class CorruptArtifactError extends Error {
  override readonly name = 'CorruptArtifactError';
  readonly failureCause: FailureCause = 'corrupt_artifact';
  readonly digest: Digest;
  /** What is there instead: `missing`, a wrong digest with the size, or why the content cannot be read. */
  readonly found: string;

  constructor({ digest, found, movedTo }: { digest: Digest; found: string; movedTo?: string | null }) {
    const aside = movedTo == null ? '' : `; the damaged file was moved to ${movedTo}`;
    super(
      `object ${digest}: expected bytes with this SHA-256, found ${found}${aside}. ` +
        `Run the job that makes it again (the store rebuilds what is missing).`,
    );
    this.digest = digest;
    this.found = found;
  }
}

/** One key gave two results: a broken promise of determinism, never a race to win. */
export class NondeterminismError extends Error {
  override readonly name = 'NondeterminismError';
  readonly failureCause: FailureCause = 'nondeterminism';

  /** `subject` is, for example, `job <key>` or `checkpoint of job <key> at step 40`. */
  constructor({ subject, stored, received }: { subject: string; stored: string; received: string }) {
    super(
      `${subject} has a stored result and a different one came. Stored: ${stored}. Received: ${received}. ` +
        `The stored one stays. Compare the two workers' numerics class and engine revision.`,
    );
  }
}

/** The file system or the server refuses: full, read-only, forbidden, broken, away. Worth a retry once its owner has acted. */
export class StoreUnavailableError extends Error {
  override readonly name = 'StoreUnavailableError';
  readonly failureCause: FailureCause = 'store_unavailable';
  readonly path: string;
  readonly code: string;

  /** Without a remedy of its own a code has that of the file system's. */
  constructor({ path, code, remedy, cause }: { path: string; code: string; remedy?: string; cause: unknown }) {
    super(`artifact store: ${path}: ${code}: ${remedy ?? REMEDIES[code] ?? 'check the disk and its mount'}`, { cause });
    this.path = path;
    this.code = code;
  }
}

/** A store address that cannot be opened. */
export class StoreAddressError extends Error {
  override readonly name = 'StoreAddressError';
  readonly failureCause: FailureCause = 'bad_input';
}

const REMEDIES: Record<string, string> = {
  ENOSPC: 'the disk is full; free space or move the store, then resume the run',
  EDQUOT: 'the disk quota is used up; free space or raise the quota, then resume the run',
  EROFS: 'the file system is read-only; remount it for writing or choose another store',
  EACCES: 'no permission; give this user write access to the folder or choose another store',
  EPERM: 'the operation is not permitted; give this user ownership of the folder or choose another store',
  EIO: 'the disk reports an input/output error; check its health',
  ESTALE: 'the network file system handle is stale; remount it',
};

/** Turns the operating system's refusals into StoreUnavailableError; everything else passes unchanged. */
export function asStoreError(error: unknown, path: string): unknown {
  if (error instanceof StoreUnavailableError) return error;
  const code = (error as NodeJS.ErrnoException | null)?.code;
  if (code === undefined || !(code in REMEDIES)) return error;
  return new StoreUnavailableError({ path: (error as NodeJS.ErrnoException).path ?? path, code, cause: error });
}
