/**
 * File input and output of domain jobs: text lines from plain or gzip files, NDJSON, and atomic writes.
 *
 * 1. gzip is recognised by its two magic bytes, never by the file's name.
 * 2. Lines are split at "\n" (a "\r" before it is dropped) and streamed, a whole chunk of them at a time: memory does not grow with
 *    the file, and no promise is made for a line. What is without a line end for 16 MiB is no text file, and bad input.
 * 3. A write goes to a temporary name in the same folder, is flushed to disk and then renamed.
 */
import { isUtf8 } from 'node:buffer';
import { createReadStream, type ReadStream } from 'node:fs';
import { open, readFile, rename, rm } from 'node:fs/promises';
import { basename } from 'node:path';
import { createGunzip } from 'node:zlib';
import { BadInputError } from './domain-job.js';

const CHUNK_BYTES = 1 << 18;
const CARRIAGE_RETURN = 13;

export interface TextLine {
  /** 1-based. */
  number: number;
  text: string;
}

/** Longer ones are in no log or catalogue: a file of another kind must not be taken into memory whole. */
const LINE_CHARACTERS_MAX = 16 * 1024 * 1024;

/** Lines of a UTF-8 text file, empty ones included, without their line ends. */
export async function* readLines(path: string): AsyncGenerator<TextLine> {
  let number = 0;
  for await (const lines of lineBatches(path, 'utf-8')) {
    for (const text of lines) yield { number: ++number, text };
  }
}

export interface LineReading {
  /** `latin1` reads bytes as they are; see `decodedLine`. */
  encoding?: 'utf-8' | 'latin1';
}

/**
 * The same lines, each handed to `visit` (number first counted from 1) without a promise of its own: for files of millions of lines.
 * A text that is kept must be copied (`ownCopy`), or it keeps the chunk that it was cut from. False from `visit` ends the reading.
 */
export async function forEachLine(
  path: string,
  visit: (text: string, number: number) => boolean | void,
  { encoding = 'utf-8' }: LineReading = {},
): Promise<void> {
  let number = 0;
  for await (const lines of lineBatches(path, encoding)) {
    for (const text of lines) {
      number += 1;
      if (visit(text, number) === false) return;
    }
  }
}

/** The first line that is not empty, '' where there is none: what an importer tells a variant of its format by. */
export async function firstLine(path: string): Promise<string> {
  let first = '';
  await forEachLine(path, (text) => {
    first = text.trim();
    return first === '';
  });
  return first;
}

/** A string that shares no memory with the one that it was cut from. */
export function ownCopy(text: string): string {
  return JSON.parse(JSON.stringify(text)) as string;
}

/** A line that was read as latin1: its bytes as UTF-8 where they are, else as they stand. */
export function decodedLine(text: string): string {
  // eslint-disable-next-line no-control-regex -- ASCII needs no second look
  if (/^[\x00-\x7f]*$/.test(text)) return text;
  const bytes = Buffer.from(text, 'latin1');
  return isUtf8(bytes) ? bytes.toString('utf8') : text;
}

async function* lineBatches(path: string, encoding: 'utf-8' | 'latin1'): AsyncGenerator<string[]> {
  let first = true;
  let rest = '';
  for await (const chunk of textChunks(path, encoding)) {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop() ?? '';
    if (rest.length > LINE_CHARACTERS_MAX) {
      throw new BadInputError(
        `${basename(path)}: expected lines of text, got ${rest.length} characters without a line end; check the path and the format`,
      );
    }
    if (lines.length === 0) continue;
    yield withoutLineEnds(lines, first);
    first = false;
  }
  if (rest !== '') yield withoutLineEnds([rest], first);
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

/** In place. `first`: the batch begins with the file's first line, which may begin with a byte order mark. */
function withoutLineEnds(lines: string[], first: boolean): string[] {
  if (first) lines[0] = (lines[0] ?? '').replace(/^(\uFEFF|\u00EF\u00BB\u00BF)/, '');
  for (let i = 0; i < lines.length; i += 1) {
    const line = lines[i] ?? '';
    if (line.charCodeAt(line.length - 1) === CARRIAGE_RETURN) lines[i] = line.slice(0, -1);
  }
  return lines;
}

async function* textChunks(path: string, encoding: 'utf-8' | 'latin1'): AsyncGenerator<string> {
  const raw: ReadStream = createReadStream(path, { highWaterMark: CHUNK_BYTES });
  const decoder = encoding === 'latin1' ? null : new TextDecoder('utf-8', { ignoreBOM: true });
  const bytes = (await isGzip(path)) ? raw.pipe(createGunzip({ chunkSize: CHUNK_BYTES })) : raw;
  // pipe() does not carry errors over; destroying the reader's end does.
  if (bytes !== raw) raw.on('error', (error) => bytes.destroy(error));
  try {
    for await (const chunk of bytes) {
      const part = chunk as Buffer;
      yield decoder === null ? part.toString('latin1') : decoder.decode(part, { stream: true });
    }
    if (decoder !== null) yield decoder.decode();
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
