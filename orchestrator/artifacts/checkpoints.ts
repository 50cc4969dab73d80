/**
 * Checkpoints: files and a manifest as objects, and `checkpoints/<job key>/<step>.json` pointing at the manifest.
 *
 * 1. Files first, then the manifest, then the pointer: what a pointer names was whole when it was written.
 * 2. A checkpoint is a function of job key and step. A different, undamaged one for the same step is refused.
 * 3. Damaged ones are skipped, newest first, until a good one is found.
 */
import { mkdir, readdir, rm } from 'node:fs/promises';
import { dirname, join, posix, sep } from 'node:path';

import type { CheckpointManifest, CheckpointRef, CheckpointState, StoreWarning } from './artifact-store.js';
import { asStoreError, CorruptArtifactError, NondeterminismError } from './errors.js';
import { canonicalJson, isDigest } from './job-key.js';
import type { StorePlace } from './job-results.js';
import { seal, unseal } from './sealed-record.js';
import type { ObjectSpace, RecordSpace } from './store-parts.js';

const FOLDER = 'checkpoints';
const STEP_DIGITS = 12;

interface Pointer {
  step: number;
  manifestDigest: string;
}

interface CheckpointFolder {
  jobKey: string;
  step: number;
  dir: string;
}

export class Checkpoints {
  readonly #objects: ObjectSpace;
  readonly #records: RecordSpace;
  readonly #warn: (warning: StoreWarning) => void;

  constructor({ objects, records, onWarning }: StorePlace) {
    this.#objects = objects;
    this.#records = records;
    this.#warn = onWarning;
  }

  async put(folder: CheckpointFolder): Promise<CheckpointRef> {
    const stored = await this.putUnlisted(folder);
    await this.#point(folder.jobKey, { step: stored.step, manifestDigest: stored.manifestDigest });
    return stored;
  }

  async putUnlisted({ jobKey, step, dir }: CheckpointFolder): Promise<CheckpointRef> {
    if (!Number.isSafeInteger(step) || step < 0)
      throw new TypeError(`checkpoint: expected a step >= 0, got ${String(step)}`);
    const files: Record<string, string> = {};
    for (const name of await filesBelow(dir)) files[name] = await this.#objects.putFile(join(dir, name));
    if (Object.keys(files).length === 0) throw new TypeError(`checkpoint: expected files below ${dir}, found none`);
    const manifest: CheckpointManifest = { files, step, jobKey };
    const manifestDigest = await this.#objects.putBytes(Buffer.from(canonicalJson(manifest)));
    return { step, manifestDigest, bytes: await this.#bytesOf(manifest) };
  }

  async latest(jobKey: string): Promise<CheckpointRef | null> {
    const steps = await this.#steps(jobKey);
    for (const step of steps.reverse()) {
      const found = await this.#verified(jobKey, step);
      if (found !== null) return found;
    }
    return null;
  }

  async list(jobKey: string): Promise<Pointer[]> {
    const pointers: Pointer[] = [];
    for (const step of await this.#steps(jobKey)) {
      const pointer = await this.#readPointer(jobKey, step);
      if (pointer !== null && pointer !== 'damaged') pointers.push(pointer);
    }
    return pointers;
  }

  async inspect(jobKey: string): Promise<CheckpointState[]> {
    const states: CheckpointState[] = [];
    for (const step of await this.#steps(jobKey)) {
      const pointer = await this.#readPointer(jobKey, step);
      if (pointer === null) continue;
      const manifestDigest = pointer === 'damaged' ? null : pointer.manifestDigest;
      states.push({ step, manifestDigest, damage: await this.#damageOf(jobKey, step, pointer) });
    }
    return states;
  }

  async restore(manifestDigest: string, targetDir: string): Promise<CheckpointManifest> {
    const manifest = await this.#readManifest(manifestDigest);
    try {
      await mkdir(targetDir, { recursive: true });
      if ((await readdir(targetDir)).length > 0) {
        throw new TypeError(`restore: expected an empty or absent folder, ${targetDir} has files; choose another`);
      }
    } catch (error) {
      throw asStoreError(error, targetDir);
    }
    try {
      // Copies, never links: a job that writes to its folder must not reach the objects.
      for (const [name, digest] of Object.entries(manifest.files)) {
        const target = join(targetDir, name);
        await mkdir(dirname(target), { recursive: true });
        await this.#objects.copyTo(digest, target);
      }
    } catch (error) {
      // All or nothing: half a checkpoint must not be taken for one.
      await rm(targetDir, { recursive: true, force: true });
      throw asStoreError(error, targetDir);
    }
    return manifest;
  }

  async prune(jobKey: string, keep: number): Promise<number> {
    if (!Number.isSafeInteger(keep) || keep < 1)
      throw new TypeError(`prune: expected to keep >= 1, got ${String(keep)}`);
    const dropped = (await this.#steps(jobKey)).slice(0, -keep);
    await this.#records.remove(dropped.map((step) => nameOf(jobKey, step)));
    return dropped.length;
  }

  /** Every job key that has checkpoints. */
  async jobKeys(): Promise<string[]> {
    return (await this.#records.names(FOLDER)).filter(isDigest);
  }

  /** Digests that a checkpoint needs; as many as can be read when it is damaged. */
  async references({ manifestDigest }: Pointer): Promise<string[]> {
    try {
      return [manifestDigest, ...Object.values((await this.#readManifest(manifestDigest)).files)];
    } catch (error) {
      if (error instanceof CorruptArtifactError) return [manifestDigest];
      throw error;
    }
  }

  async #point(jobKey: string, pointer: Pointer): Promise<void> {
    const name = nameOf(jobKey, pointer.step);
    for (;;) {
      if (await this.#records.create(name, seal(pointer))) return;
      const stored = await this.#readPointer(jobKey, pointer.step);
      if (stored !== null && stored !== 'damaged' && stored.manifestDigest === pointer.manifestDigest) return;
      if (stored !== null && (await this.#verified(jobKey, pointer.step)) !== null) {
        throw new NondeterminismError({
          subject: `checkpoint of job ${jobKey} at step ${String(pointer.step)}`,
          stored: `manifest ${stored === 'damaged' ? 'unreadable' : stored.manifestDigest}`,
          received: `manifest ${pointer.manifestDigest}`,
        });
      }
    }
  }

  /** The checkpoint if every byte is right; else null, with a warning, and its pointer set aside. */
  async #verified(jobKey: string, step: number): Promise<CheckpointRef | null> {
    const pointer = await this.#readPointer(jobKey, step);
    if (pointer === null) return null;
    const damage = await this.#damageOf(jobKey, step, pointer);
    if (damage === null && pointer !== 'damaged') {
      return { ...pointer, bytes: await this.#bytesOf(await this.#readManifest(pointer.manifestDigest)) };
    }
    await this.#records.setAside(nameOf(jobKey, step));
    this.#warn({
      subject: `checkpoint of ${jobKey} at step ${String(step)}`,
      message: `skipped: ${damage ?? 'its pointer is damaged'}`,
    });
    return null;
  }

  /** What is wrong with a checkpoint; null when every byte is right. */
  async #damageOf(jobKey: string, step: number, pointer: Pointer | 'damaged'): Promise<string | null> {
    if (pointer === 'damaged') return 'its pointer is damaged';
    try {
      const manifest = await this.#readManifest(pointer.manifestDigest);
      for (const digest of Object.values(manifest.files)) await this.#objects.verify(digest);
      const isIts = manifest.jobKey === jobKey && manifest.step === step;
      return isIts ? null : `its manifest is that of job ${manifest.jobKey}, step ${String(manifest.step)}`;
    } catch (error) {
      if (!(error instanceof CorruptArtifactError)) throw error;
      return error.message;
    }
  }

  async #readPointer(jobKey: string, step: number): Promise<Pointer | 'damaged' | null> {
    const text = await this.#records.read(nameOf(jobKey, step));
    if (text === null) return null;
    const record = unseal(text) as Partial<Pointer> | null | undefined;
    return record?.step === step && isDigest(record.manifestDigest)
      ? { step, manifestDigest: record.manifestDigest }
      : 'damaged';
  }

  async #readManifest(digest: string): Promise<CheckpointManifest> {
    const text = (await this.#objects.readBytes(digest)).toString('utf8');
    const unreadable = (why: string): CorruptArtifactError =>
      new CorruptArtifactError({ digest, found: `a file that is not a checkpoint manifest (${why})` });
    let manifest: Partial<CheckpointManifest> | null;
    try {
      manifest = JSON.parse(text) as Partial<CheckpointManifest> | null;
    } catch {
      throw unreadable('not JSON');
    }
    const { files, step, jobKey } = manifest ?? {};
    if (typeof files !== 'object' || typeof step !== 'number' || typeof jobKey !== 'string') {
      throw unreadable('fields files, step and jobKey are expected');
    }
    for (const [name, file] of Object.entries(files)) {
      if (!isDigest(file) || !isSafeName(name)) throw unreadable(`entry "${name}"`);
    }
    return { files, step, jobKey };
  }

  async #bytesOf(manifest: CheckpointManifest): Promise<number> {
    let bytes = 0;
    for (const digest of Object.values(manifest.files)) bytes += await this.#objects.sizeOf(digest);
    return bytes;
  }

  /** Steps with a pointer, ascending. */
  async #steps(jobKey: string): Promise<number[]> {
    const names = await this.#records.names(`${FOLDER}/${checkedKey(jobKey)}`);
    return names.flatMap((name) => (/^\d+\.json$/.test(name) ? [Number.parseInt(name, 10)] : [])).sort((a, b) => a - b);
  }
}

function nameOf(jobKey: string, step: number): string {
  return `${FOLDER}/${checkedKey(jobKey)}/${String(step).padStart(STEP_DIGITS, '0')}.json`;
}

function checkedKey(jobKey: string): string {
  if (!isDigest(jobKey)) throw new TypeError(`expected a job key (SHA-256 in hex), got "${String(jobKey)}"`);
  return jobKey;
}

/** Below the folder it is joined to: no absolute path, no `..`. */
function isSafeName(name: string): boolean {
  return name !== '' && !posix.isAbsolute(name) && posix.normalize(name) === name && !name.split('/').includes('..');
}

/** Relative paths of all regular files, with `/`, in code-unit order. */
async function filesBelow(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(join(dir, sep).length).split(sep).join('/'))
    .sort();
}
