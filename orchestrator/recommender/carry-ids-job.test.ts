import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { type JsonObject } from '../../workflows/contract.js';
import { carryIdsJob } from './carry-ids-job.js';
import { SafetensorsFile, writeSafetensors } from './safetensors.js';
import { TestFolder } from './test-folder.js';

let folder: TestFolder;
beforeEach(async () => {
  folder = await TestFolder.make();
});
afterEach(() => folder.remove());

const centroids = { shape: [2, 4, 3], data: Float32Array.from({ length: 24 }, (_, i) => i) };

async function catalogue(name: string, items: string[]): Promise<string> {
  const path = join(folder.path, name);
  const lines = items.map((item) =>
    JSON.stringify({ item, title: '', brand: '', categories: '', keywords: '', description: '' }),
  );
  await writeFile(path, lines.map((line) => `${line}\n`).join(''));
  return path;
}

async function codesFile(codes: number[]): Promise<string> {
  const path = join(folder.path, 'codes.safetensors');
  await writeSafetensors(path, { codes: { shape: [codes.length / 2, 2], data: Int32Array.from(codes) }, centroids });
  return path;
}

async function run(
  inputs: Record<string, string>,
): Promise<{ path: string; file: SafetensorsFile; summary: JsonObject }> {
  const outputDir = join(folder.path, `out${Math.random()}`);
  await mkdir(outputDir);
  const { outputs, summary } = await carryIdsJob({ recipe: {}, inputs, outputDir, report: () => undefined });
  const path = join(outputDir, outputs['published'] ?? '');
  return { path, file: await SafetensorsFile.open(path), summary };
}

describe('carry_ids', () => {
  it('gives items the ids that they had, by name, and retires those of items that are gone', async () => {
    const inputs = {
      catalogue: await catalogue('today', ['new', 'c', 'a']),
      earlier_catalogue: await catalogue('before', ['a', 'b', 'c']),
      earlier_codes: await codesFile([0, 1, 2, 3, 3, 0]),
    };
    const { file, summary } = await run(inputs);
    expect([...file.i32('codes', [-1, 2]).data]).toEqual([-1, -1, 3, 0, 0, 1]);
    expect([...file.i32('retired', [-1, 2]).data]).toEqual([2, 3]);
    expect(file.f32('centroids', [2, 4, 3]).data).toEqual(centroids.data);
    expect(summary).toEqual({ kept: 2, added: 1, retired: 1 });
  });

  it('keeps retired what earlier runs retired', async () => {
    const first = await run({
      catalogue: await catalogue('second', ['a', 'c']),
      earlier_catalogue: await catalogue('first', ['a', 'b', 'c']),
      earlier_codes: await codesFile([0, 1, 2, 3, 3, 0]),
    });
    const { file, summary } = await run({
      catalogue: await catalogue('third', ['a']),
      earlier_catalogue: await catalogue('second', ['a', 'c']),
      earlier_codes: await codesFile([0, 1, 3, 0]),
      earlier_published: first.path,
    });
    expect([...file.i32('retired', [-1, 2]).data]).toEqual([2, 3, 3, 0]);
    expect(summary).toEqual({ kept: 1, added: 0, retired: 2 });
  });

  it('refuses codes of another catalogue', async () => {
    const inputs = {
      catalogue: await catalogue('today', ['a']),
      earlier_catalogue: await catalogue('before', ['a', 'b']),
      earlier_codes: await codesFile([0, 1]),
    };
    await expect(run(inputs)).rejects.toThrow(/expected one row for each of 2 items, got 1/);
  });
});
