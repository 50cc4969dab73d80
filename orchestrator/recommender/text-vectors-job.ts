/** Job kind `text_vectors`: item text to L2-normalised vectors, or the vectors that a user brought to the order of the items. */
import { alignVectors } from './brought-vectors.js';
import { itemTextOf, readCatalogue } from './catalogue.js';
import { type DomainJob, type DomainJobContext, type DomainJobOutcome } from './domain-job.js';
import { inputPath, outputPath } from './job-files.js';
import { RecipeFields } from './recipe-fields.js';
import { SafetensorsFile, writeSafetensors } from './safetensors.js';
import { textVectors } from './text-vectors.js';

const DIM_MAX = 1024;

export const textVectorsJob: DomainJob = async (context) => {
  if ('vectors' in context.inputs) return alignedJob(context);
  const fields = new RecipeFields('text_vectors', context.recipe);
  const recipe = {
    dim: fields.integer('dim', { min: 1, max: DIM_MAX }),
    minDocuments: fields.integer('minDocuments', { min: 1 }),
    iterations: fields.integer('iterations', { min: 0, max: 100 }),
    seed: fields.integer('seed', { min: 0 }),
  };
  const texts = (await readCatalogue(inputPath(context, 'catalogue'))).map(itemTextOf);
  const vectors = textVectors(texts, recipe);
  context.report(1, 1, { items: texts.length });
  const outputs = { text_vectors: 'text_vectors.safetensors' };
  await writeSafetensors(outputPath(context, outputs.text_vectors), {
    items: { shape: [texts.length, recipe.dim], data: vectors },
  });
  const withoutText = texts.filter((text) => text === '').length;
  return { outputs, summary: { items: texts.length, withoutText, dim: recipe.dim } };
};

async function alignedJob(context: DomainJobContext): Promise<DomainJobOutcome> {
  const ids = (await readCatalogue(inputPath(context, 'catalogue'))).map(({ item }) => item);
  const { dim, rows, withoutText } = alignVectors(await SafetensorsFile.open(inputPath(context, 'vectors')), ids);
  context.report(1, 1, { items: ids.length });
  const outputs = { text_vectors: 'text_vectors.safetensors' };
  await writeSafetensors(outputPath(context, outputs.text_vectors), {
    items: { shape: [ids.length, dim], data: rows },
  });
  return { outputs, summary: { items: ids.length, withoutText, dim } };
}
