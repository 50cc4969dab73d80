import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readLines, readNdjson, writeFileAtomically } from './files.js';
import { TestFolder } from './test-folder.js';

let folder: TestFolder;
beforeEach(async () => {
  folder = await TestFolder.make();
});
afterEach(() => folder.remove());

async function linesOf(path: string): Promise<[number, string][]> {
  const lines: [number, string][] = [];
  for await (const { number, text } of readLines(path)) lines.push([number, text]);
  return lines;
}

describe('readLines', () => {
  it('numbers lines and drops the byte order mark, carriage returns and the last line end', async () => {
    const path = await folder.write('log', '\uFEFFa\r\n\nbé\n');
    expect(await linesOf(path)).toEqual([
      [1, 'a'],
      [2, ''],
      [3, 'bé'],
    ]);
  });

  it('recognises gzip by its content, whatever the name', async () => {
    const path = await folder.write('log.txt', gzipSync('one\ntwo'));
    expect(await linesOf(path)).toEqual([
      [1, 'one'],
      [2, 'two'],
    ]);
  });

  it('keeps lines and characters whole across chunks', async () => {
    const long = Array.from({ length: 30_000 }, (_, i) => `line ${i} ünïcödé`);
    const path = await folder.write('log', long.join('\n'));
    expect((await linesOf(path)).map(([, text]) => text)).toEqual(long);
  });

  it('says when a gzip file is cut off', async () => {
    const whole = gzipSync(Array.from({ length: 1000 }, (_, i) => `${i * 7919}`).join('\n'));
    const path = await folder.write('log.gz', whole.subarray(0, whole.length - 20));
    await expect(linesOf(path)).rejects.toThrow(/log\.gz: expected a whole gzip file, got a damaged one/);
  });

  it('is empty for an empty file', async () => {
    expect(await linesOf(await folder.write('empty', ''))).toEqual([]);
  });
});

describe('readNdjson', () => {
  it('names the line that does not fit', async () => {
    const path = await folder.write('users', '{"user": "a"}\n\n{"user": 3}\n');
    const check = (value: unknown): string | null =>
      typeof (value as { user: unknown }).user === 'string' ? 'fine' : null;
    await expect(readNdjson(path, check, '{"user": string}')).rejects.toThrow(
      'users line 3: expected {"user": string}, got "{\\"user\\": 3}"',
    );
  });
});

describe('writeFileAtomically', () => {
  it('leaves only the finished file', async () => {
    await writeFileAtomically(join(folder.path, 'out'), 'content');
    expect(await readdir(folder.path)).toEqual(['out']);
    expect(await readFile(join(folder.path, 'out'), 'utf8')).toBe('content');
  });

  it('leaves an earlier file alone and no remains when the write fails', async () => {
    await expect(writeFileAtomically(join(folder.path, 'missing', 'out'), 'x')).rejects.toThrow(/ENOENT/);
    expect(await readdir(folder.path)).toEqual([]);
  });
});
