/**
 * `runs/<id>/` in a bucket. S3 cannot append, so events are numbered segments, `events-<number>.ndjson`, that never change.
 *
 * 1. A segment is created under the next free number only: events of several writers have one order, as in one file.
 * 2. Calls that come while a segment is on its way share the next one.
 */
import type { JsonObject } from '../../workflows/contract.js';
import type { EventPage, StoreWarning } from './artifact-store.js';
import { eventText, parseEvents } from './event-lines.js';
import { inParallel } from './parallel.js';
import { checkedName } from './run-names.js';
import type { S3Connection } from './s3-connection.js';
import type { S3Records } from './s3-records.js';
import type { RunSpace } from './store-parts.js';

const FOLDER = 'runs';
const NUMBER_DIGITS = 12;
const READS_IN_FLIGHT = 16;

interface Writer {
  /** Not yet on its way. */
  next: { text: string; done: Promise<void> } | null;
  last: Promise<void>;
  /** Of the next segment; null before the first is written. */
  number: number | null;
}

export interface S3RunsOptions {
  connection: S3Connection;
  records: S3Records;
  onWarning: (warning: StoreWarning) => void;
}

export class S3Runs implements RunSpace {
  readonly #connection: S3Connection;
  readonly #records: S3Records;
  readonly #warn: (warning: StoreWarning) => void;
  readonly #writers = new Map<string, Writer>();

  constructor({ connection, records, onWarning }: S3RunsOptions) {
    this.#connection = connection;
    this.#records = records;
    this.#warn = onWarning;
  }

  address(runId: string): string {
    return this.#connection.addressOf(folderOf(runId));
  }

  async writeFile(runId: string, name: string, bytes: string | Uint8Array): Promise<string> {
    const path = `${folderOf(runId)}/${checkedName('file name', name)}`;
    await this.#records.replace(path, bytes);
    return this.#connection.addressOf(path);
  }

  async readFile(runId: string, name: string): Promise<Buffer | null> {
    return this.#records.readBytes(`${folderOf(runId)}/${checkedName('file name', name)}`);
  }

  async list(): Promise<string[]> {
    return (await this.#connection.namesIn(FOLDER)).folders.sort();
  }

  async files(runId: string): Promise<string[]> {
    return (await this.#connection.namesIn(folderOf(runId))).files.sort();
  }

  async appendEvents(runId: string, events: readonly JsonObject[]): Promise<void> {
    if (events.length === 0) return;
    const text = eventText(events);
    const writer = this.#writers.get(runId) ?? { next: null, last: Promise.resolve(), number: null };
    this.#writers.set(runId, writer);
    if (writer.next !== null) {
      writer.next.text += text;
      return writer.next.done;
    }
    const next = { text, done: Promise.resolve() };
    next.done = writer.last
      .catch(() => undefined)
      .then(() => {
        writer.next = null;
        return this.#write(runId, writer, next.text);
      });
    writer.next = next;
    writer.last = next.done;
    return next.done;
  }

  async readEvents(runId: string): Promise<JsonObject[]> {
    return (await this.readEventsAfter(runId, null)).events;
  }

  /** The cursor is the number of the last segment that was read. */
  async readEventsAfter(runId: string, cursor: string | null): Promise<EventPage> {
    const after = Number(cursor ?? 0);
    const numbers = (await this.#numbers(runId)).filter((number) => number > after);
    const texts = await inParallel(numbers, {
      limit: READS_IN_FLIGHT,
      body: (number) => this.#records.read(segmentOf(runId, number)),
    });
    // A segment that was cut short costs its last line, not the first of the next one.
    const text = texts.map((part) => (part === null || part.endsWith('\n') ? (part ?? '') : `${part}\n`)).join('');
    return { events: parseEvents({ runId, text, warn: this.#warn }), cursor: String(numbers.at(-1) ?? after) };
  }

  async #write(runId: string, writer: Writer, text: string): Promise<void> {
    writer.number ??= ((await this.#numbers(runId)).at(-1) ?? 0) + 1;
    while (!(await this.#records.createMarked(segmentOf(runId, writer.number), text))) {
      // Another process writes events of this run too.
      writer.number = Math.max(writer.number, (await this.#numbers(runId)).at(-1) ?? 0) + 1;
    }
    writer.number += 1;
  }

  async #numbers(runId: string): Promise<number[]> {
    const files = await this.files(runId);
    return files.flatMap((name) => {
      const number = /^events-(\d+)\.ndjson$/.exec(name)?.[1];
      return number === undefined ? [] : [Number(number)];
    });
  }
}

function folderOf(runId: string): string {
  return `${FOLDER}/${checkedName('run id', runId)}`;
}

function segmentOf(runId: string, number: number): string {
  return `${folderOf(runId)}/events-${String(number).padStart(NUMBER_DIGITS, '0')}.ndjson`;
}
