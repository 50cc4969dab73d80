/**
 * `runs/<id>/`: what people read about a run (plan, result, events). Replaced whole or appended line by line; never an
 * input of a job.
 */
import { mkdir, open, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

import type { JsonObject } from '../../workflows/contract.js';
import type { StoreWarning } from './artifact-store.js';
import { isMissing, replaceFile } from './durable-file.js';
import { asStoreError } from './errors.js';
import { canonicalJson } from './job-key.js';

const EVENTS = 'events.ndjson';
const NEWLINE = 0x0a;

export class RunFolder {
  readonly #folder: string;
  readonly #warn: (warning: StoreWarning) => void;
  /** Last append of each run, so that lines of one process keep their order. */
  readonly #appends = new Map<string, Promise<void>>();

  constructor(root: string, warn: (warning: StoreWarning) => void) {
    this.#folder = join(root, 'runs');
    this.#warn = warn;
  }

  dir(runId: string): string {
    return join(this.#folder, checkedName('run id', runId));
  }

  async writeFile(runId: string, name: string, bytes: string | Uint8Array): Promise<string> {
    const path = join(this.dir(runId), checkedName('file name', name));
    await replaceFile(path, bytes);
    return path;
  }

  async readFile(runId: string, name: string): Promise<Buffer | null> {
    const path = join(this.dir(runId), checkedName('file name', name));
    return readFile(path).catch((error: unknown) => this.#absent(error));
  }

  async list(): Promise<string[]> {
    const entries = await readdir(this.#folder, { withFileTypes: true }).catch((error: unknown) => this.#absent(error));
    return (entries ?? []).flatMap((entry) => (entry.isDirectory() ? [entry.name] : [])).sort();
  }

  /** Names of the plain files of a run. */
  async files(runId: string): Promise<string[]> {
    const entries = await readdir(this.dir(runId), { withFileTypes: true }).catch((error: unknown) =>
      this.#absent(error),
    );
    return (entries ?? []).flatMap((entry) => (entry.isFile() ? [entry.name] : [])).sort();
  }

  async appendEvents(runId: string, events: readonly JsonObject[]): Promise<void> {
    if (events.length === 0) return;
    const text = events.map((event) => `${canonicalJson(event)}\n`).join('');
    const earlier = this.#appends.get(runId) ?? Promise.resolve();
    const append = earlier.catch(() => undefined).then(() => this.#append(runId, text));
    this.#appends.set(runId, append);
    try {
      await append;
    } finally {
      if (this.#appends.get(runId) === append) this.#appends.delete(runId);
    }
  }

  async readEvents(runId: string): Promise<JsonObject[]> {
    const bytes = await this.readFile(runId, EVENTS);
    const lines = (bytes?.toString('utf8') ?? '').split('\n').filter((line) => line !== '');
    return lines.flatMap((line, i) => {
      try {
        return [JSON.parse(line) as JsonObject];
      } catch {
        this.#warn({ subject: `events of run ${runId}`, message: `line ${String(i + 1)} is damaged and left out` });
        return [];
      }
    });
  }

  async #append(runId: string, text: string): Promise<void> {
    const path = join(this.dir(runId), EVENTS);
    try {
      await mkdir(this.dir(runId), { recursive: true });
      const file = await open(path, 'a+');
      try {
        const { size } = await file.stat();
        const last = Buffer.alloc(1);
        if (size > 0) await file.read(last, 0, 1, size - 1);
        // A crash may have cut the last line short: begin a new one, so that only that line is lost.
        await file.writeFile(size > 0 && last[0] !== NEWLINE ? `\n${text}` : text);
        await file.datasync();
      } finally {
        await file.close();
      }
    } catch (error) {
      throw asStoreError(error, path);
    }
  }

  #absent(error: unknown): null {
    if (isMissing(error)) return null;
    throw asStoreError(error, this.#folder);
  }
}

function checkedName(what: string, name: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/.test(name)) {
    throw new TypeError(
      `${what}: expected 1 to 128 letters, digits, ".", "_" or "-", a letter or digit first; got "${name}"`,
    );
  }
  return name;
}
