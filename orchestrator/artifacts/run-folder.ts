/**
 * `runs/<id>/`: what people read about a run (plan, result, events). Replaced whole or appended line by line; never an
 * input of a job.
 */
import { mkdir, open, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

import type { JsonObject } from '../../workflows/contract.js';
import type { EventPage, StoreWarning } from './artifact-store.js';
import { isMissing, replaceFile } from './durable-file.js';
import { asStoreError } from './errors.js';
import { eventText, parseEvents } from './event-lines.js';
import { checkedName } from './run-names.js';
import type { RunSpace } from './store-parts.js';

const EVENTS = 'events.ndjson';
const NEWLINE = 0x0a;

export class RunFolder implements RunSpace {
  readonly #folder: string;
  readonly #warn: (warning: StoreWarning) => void;
  /** Last append of each run, so that lines of one process keep their order. */
  readonly #appends = new Map<string, Promise<void>>();

  constructor(root: string, warn: (warning: StoreWarning) => void) {
    this.#folder = join(root, 'runs');
    this.#warn = warn;
  }

  address(runId: string): string {
    return join(this.#folder, checkedName('run id', runId));
  }

  async writeFile(runId: string, name: string, bytes: string | Uint8Array): Promise<string> {
    const path = join(this.address(runId), checkedName('file name', name));
    await replaceFile(path, bytes);
    return path;
  }

  async readFile(runId: string, name: string): Promise<Buffer | null> {
    const path = join(this.address(runId), checkedName('file name', name));
    return readFile(path).catch((error: unknown) => this.#absent(error));
  }

  async list(): Promise<string[]> {
    const entries = await readdir(this.#folder, { withFileTypes: true }).catch((error: unknown) => this.#absent(error));
    return (entries ?? []).flatMap((entry) => (entry.isDirectory() ? [entry.name] : [])).sort();
  }

  /** Names of the plain files of a run. */
  async files(runId: string): Promise<string[]> {
    const entries = await readdir(this.address(runId), { withFileTypes: true }).catch((error: unknown) =>
      this.#absent(error),
    );
    return (entries ?? []).flatMap((entry) => (entry.isFile() ? [entry.name] : [])).sort();
  }

  async appendEvents(runId: string, events: readonly JsonObject[]): Promise<void> {
    if (events.length === 0) return;
    const text = eventText(events);
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
    const text = (await this.readFile(runId, EVENTS))?.toString('utf8') ?? '';
    return parseEvents({ runId, text, warn: this.#warn });
  }

  /** The cursor is an offset in bytes. */
  async readEventsAfter(runId: string, cursor: string | null): Promise<EventPage> {
    const offset = Number(cursor ?? 0);
    const rest = (await this.#tail(runId, offset)) ?? Buffer.alloc(0);
    const whole = rest.subarray(0, rest.lastIndexOf(NEWLINE) + 1);
    const events = parseEvents({ runId, text: whole.toString('utf8'), warn: this.#warn });
    return { events, cursor: String(offset + whole.length) };
  }

  async #tail(runId: string, offset: number): Promise<Buffer | null> {
    const file = await open(join(this.address(runId), EVENTS), 'r').catch((error: unknown) => this.#absent(error));
    if (file === null) return null;
    try {
      const bytes = Buffer.alloc(Math.max(0, (await file.stat()).size - offset));
      const { bytesRead } = await file.read(bytes, 0, bytes.length, offset);
      return bytes.subarray(0, bytesRead);
    } finally {
      await file.close();
    }
  }

  async #append(runId: string, text: string): Promise<void> {
    const path = join(this.address(runId), EVENTS);
    try {
      await mkdir(this.address(runId), { recursive: true });
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
