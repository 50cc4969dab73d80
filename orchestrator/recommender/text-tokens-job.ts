/** Job kind `text_tokens`: item text as tokens of a base model, for `embed_text`. */
import { extendedPromptTokenizer } from './base-tokenizer.js';
import { itemTextOf, readCatalogue } from './catalogue.js';
import { int64 } from './dataset.js';
import { type DomainJob } from './domain-job.js';
import { parseJson, readText } from './files.js';
import { inputPath, outputPath } from './job-files.js';
import { RecipeFields } from './recipe-fields.js';
import { writeSafetensors } from './safetensors.js';

export const textTokensJob: DomainJob = async (context) => {
  const fields = new RecipeFields('text_tokens', context.recipe);
  const tokensMax = fields.integer('tokensMax', { min: 1, max: 1 << 16 });
  const texts = (await readCatalogue(inputPath(context, 'catalogue'))).map(itemTextOf);
  const tokenizerJson = parseJson(await readText(inputPath(context, 'base/tokenizer.json')));
  const configJson = parseJson(await readText(inputPath(context, 'base/config.json')));
  // The base's own tokens alone: no codes exist yet.
  const tokenizer = extendedPromptTokenizer({ tokenizerJson, configJson }, { levels: 0, codes: 0 });
  let cut = 0;
  const offsets = [0];
  const tokens: number[] = [];
  for (const text of texts) {
    const ids = text === '' ? [] : tokenizer.encode(text);
    if (ids.length > tokensMax) cut += 1;
    tokens.push(...ids.slice(0, tokensMax));
    offsets.push(tokens.length);
  }
  context.report(1, 1, { items: texts.length });
  const outputs = { text_tokens: 'text_tokens.safetensors' };
  await writeSafetensors(outputPath(context, outputs.text_tokens), {
    tokens: { shape: [tokens.length], data: Int32Array.from(tokens) },
    offsets: { shape: [offsets.length], data: int64(offsets) },
  });
  return { outputs, summary: { items: texts.length, tokens: tokens.length, cutTexts: cut } };
};
