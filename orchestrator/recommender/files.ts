/**
 * File input and output of domain jobs: text lines from plain or gzip files, NDJSON, and atomic writes.
 *
 * 1. gzip is recognised by its two magic bytes, never by the file's name.
 * 2. Lines are split at "\n" (a "\r" before it is dropped) and streamed: memory does not grow with the file.
 * 3. A write goes to a temporary name in the same folder, is flushed to disk and then renamed.
 */
import { createReadStream, type ReadStream } from 'node:fs';
import { open, readFile, rename, rm } from 'node:fs/promises';
import { basename } from 'node:path';
import { createGunzip } from 'node:zlib';
import { BadInputError } from './domain-job.js';

export interface TextLine {
  /** 1-based. */
  number: number;
  text: string;
}

/** Lines of a UTF-8 text file, empty ones included, without their line ends. */
export async function* readLines(path: string): AsyncGenerator<TextLine> {
  let number = 0;
  let rest = '';
  for await (const chunk of textChunks(path)) {
    const pieces = (rest + chunk).split('\n');
    rest = pieces.pop() ?? '';
    for (const piece of pieces) {
      number += 1;
      yield { number, text: withoutCarriageReturn(piece, number) };
    }
  }
  if (rest !== '') yield { number: number + 1, text: withoutCarriageReturn(rest, number + 1) };
}

/** Every record of an NDJSON file that another job wrote; empty lines are passed over. */
export async function readNdjson<T>(path: string, check: (value: unknown) => T | null, expected: string): Promise<T[]> {
  const records: T[] = [];
  for await (const { number, text } of readLines(path)) {
    if (text === '') continue;
    const record = check(parseJson(text));
    if (record === null) {
      throw new BadInputError(`${basename(path)} line ${number}: expected ${expected}, got ${excerpt(text)}`);
    }
    records.push(record);
  }
  return records;
}

export async function readText(path: string): Promise<string> {
  return readFile(path, 'utf8');
}

/** The parsed value, or undefined where the text is not JSON. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/** A line as it may stand in an error message: quoted, at most 80 characters. */
export function excerpt(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}...` : text);
}

export async function writeFileAtomically(path: string, content: Uint8Array | string): Promise<void> {
  const temporary = `${path}.partial`;
  try {
    const file = await open(temporary, 'w');
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

export async function writeNdjson(path: string, records: Iterable<unknown>): Promise<void> {
  const lines: string[] = [];
  for (const record of records) lines.push(JSON.stringify(record), '\n');
  await writeFileAtomically(path, lines.join(''));
}

export async function writeJson(path: string, value: unknown): Promise<void> {
  await writeFileAtomically(path, `${JSON.stringify(value, null, 2)}\n`);
}

function withoutCarriageReturn(text: string, number: number): string {
  const start = number === 1 && text.startsWith('\uFEFF') ? 1 : 0;
  const end = text.endsWith('\r') ? text.length - 1 : text.length;
  return start === 0 && end === text.length ? text : text.slice(start, end);
}

async function* textChunks(path: string): AsyncGenerator<string> {
  const raw: ReadStream = createReadStream(path, { highWaterMark: 1 << 18 });
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  const bytes = (await isGzip(path)) ? raw.pipe(createGunzip()) : raw;
  // pipe() does not carry errors over; destroying the reader's end does.
  if (bytes !== raw) raw.on('error', (error) => bytes.destroy(error));
  try {
    for await (const chunk of bytes) yield decoder.decode(chunk as Uint8Array, { stream: true });
    yield decoder.decode();
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? '';
    if (code.startsWith('Z_') || code === 'ERR_INVALID_ARG_VALUE') {
      throw new BadInputError(
        `${basename(path)}: expected a whole gzip file, got a damaged one (${code}); copy it again`,
      );
    }
    throw error;
  } finally {
    raw.destroy();
  }
}

async function isGzip(path: string): Promise<boolean> {
  const file = await open(path, 'r');
  try {
    const { bytesRead, buffer } = await file.read(Buffer.alloc(2), 0, 2, 0);
    return bytesRead === 2 && buffer[0] === 0x1f && buffer[1] === 0x8b;
  } finally {
    await file.close();
  }
}
