import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type JsonObject } from '../../workflows/contract.js';
import { SafetensorsFile } from './safetensors.js';
import { TestFolder } from './test-folder.js';
import { textTokensJob } from './text-tokens-job.js';
import { encodeWithLearned, learnTokenizer, tokenizerFile } from './tokenizer-training.js';

let folder: TestFolder;
beforeEach(async () => {
  folder = await TestFolder.make();
});
afterEach(() => folder.remove());

const TITLES = ['a red shoe', '', 'a blue hat with a very long brim'];
const learned = learnTokenizer(TITLES, { wordings: [], vocabularySize: 280 });

async function write(name: string, content: unknown): Promise<string> {
  const path = join(folder.path, name);
  await writeFile(path, typeof content === 'string' ? content : JSON.stringify(content));
  return path;
}

async function inputs(): Promise<Record<string, string>> {
  const lines = TITLES.map((title, i) =>
    JSON.stringify({ item: `i${i}`, title, brand: '', categories: '', keywords: '', description: '' }),
  );
  return {
    catalogue: await write('catalogue.ndjson', `${lines.join('\n')}\n`),
    'base/tokenizer.json': await write('tokenizer.json', tokenizerFile(learned, [])),
    'base/config.json': await write('config.json', { vocab_size: learned.tokens.length }),
  };
}

async function run(recipe: JsonObject): Promise<{ file: SafetensorsFile; summary: JsonObject }> {
  const outputDir = join(folder.path, 'out');
  await mkdir(outputDir, { recursive: true });
  const { outputs, summary } = await textTokensJob({
    recipe,
    inputs: await inputs(),
    outputDir,
    report: () => undefined,
  });
  return { file: await SafetensorsFile.open(join(outputDir, outputs['text_tokens'] ?? '')), summary };
}

describe('text_tokens', () => {
  it("gives each text in the base's own tokens, and none for an item without text", async () => {
    const { file, summary } = await run({ tokensMax: 100 });
    const texts = TITLES.map((title) => (title === '' ? [] : encodeWithLearned(learned, title)));
    expect([...file.i32('tokens', [-1]).data]).toEqual(texts.flat());
    expect(Math.max(...texts.flat())).toBeLessThan(learned.tokens.length);
    expect(summary).toEqual({ items: 3, tokens: texts.flat().length, cutTexts: 0 });
  });

  it('cuts long texts and says how many', async () => {
    const { file, summary } = await run({ tokensMax: 2 });
    expect(file.i32('tokens', [-1]).data).toHaveLength(4);
    expect(summary).toMatchObject({ tokens: 4, cutTexts: 2 });
  });

  it('refuses a recipe without its limit', async () => {
    await expect(run({})).rejects.toThrow(/tokensMax/);
  });
});
