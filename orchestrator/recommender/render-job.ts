/**
 * Job kind `render`: tokenizer, vocabulary, training examples and prompts. With the optional inputs `base/tokenizer.json` and
 * `base/config.json` the base model's tokenizer is extended; otherwise one is learned from the item text.
 */
import {
  extendedPromptTokenizer,
  type ItemCodesShape,
  learnedPromptTokenizer,
  type PromptTokenizer,
} from './base-tokenizer.js';
import { itemTextOf, readCatalogue } from './catalogue.js';
import { int64 } from './dataset.js';
import { BadInputError, type DomainJob, type DomainJobContext } from './domain-job.js';
import { parseJson, readText, writeFileAtomically } from './files.js';
import { inputDataset, inputPath, outputPath } from './job-files.js';
import { publishPromptTensors, testPromptTensors, trainExampleTensors, validationPromptTensors } from './prompts.js';
import { RecipeFields } from './recipe-fields.js';
import { type RenderRecipe } from './recipes.js';
import { SafetensorsFile, type Tensor, writeSafetensors } from './safetensors.js';
import { itemTokenIds, readSemanticIds } from './semantic-ids.js';

export const renderJob: DomainJob = async (context) => {
  const recipe = renderRecipe(context);
  const dataset = await inputDataset(context);
  const catalogue = await readCatalogue(inputPath(context, 'catalogue'));
  if (catalogue.length !== dataset.itemCount) {
    throw new BadInputError(
      `render: expected ${dataset.itemCount} catalogue lines as in the dataset, got ${catalogue.length}`,
    );
  }
  const ids = readSemanticIds(await SafetensorsFile.open(inputPath(context, 'codes')), dataset.itemCount);
  const tokenizer = await promptTokenizer(context, { texts: catalogue.map(itemTextOf), recipe, shape: ids });
  context.report(1, 2, { vocabulary: tokenizer.vocabularySize });
  const itemTokens = itemTokenIds(ids, tokenizer.firstItemToken);
  const start = tokenizer.bosToken === null ? [] : [tokenizer.bosToken];
  const templates = recipe.templates.map((words) => [...start, ...tokenizer.encode(words)]);
  const form = {
    templates,
    itemTokens,
    levels: ids.levels,
    historyItemsMax: recipe.historyItemsMax,
    seed: recipe.seed,
  };
  const examples = trainExampleTensors(dataset, form);
  const outputs = {
    tokenizer: 'tokenizer.json',
    vocabulary: 'vocabulary.safetensors',
    train_examples: 'train_examples.safetensors',
    validation_prompts: 'validation_prompts.safetensors',
    test_prompts: 'test_prompts.safetensors',
    publish_prompts: 'publish_prompts.safetensors',
  };
  await writeFileAtomically(outputPath(context, outputs.tokenizer), `${JSON.stringify(tokenizer.file)}\n`);
  await writeSafetensors(outputPath(context, outputs.vocabulary), {
    item_tokens: { shape: [ids.items, ids.levels], data: itemTokens },
    sizes: { shape: [2], data: int64([tokenizer.vocabularySize, tokenizer.firstItemToken]) },
  });
  await writeSafetensors(outputPath(context, outputs.train_examples), examples);
  const validationPrompts = validationPromptTensors(dataset, { form, usersMax: recipe.validationPrompts });
  await writeSafetensors(outputPath(context, outputs.validation_prompts), validationPrompts);
  const testPrompts = testPromptTensors(dataset, form);
  const publishPrompts = publishPromptTensors(dataset, form);
  await writeSafetensors(outputPath(context, outputs.test_prompts), testPrompts);
  await writeSafetensors(outputPath(context, outputs.publish_prompts), publishPrompts);
  context.report(2, 2, { examples: count(examples['offsets']) - 1 });
  const summary = {
    vocabularySize: tokenizer.vocabularySize,
    firstItemToken: tokenizer.firstItemToken,
    examples: count(examples['offsets']) - 1,
    tokens: count(examples['tokens']),
    // Prompts by output name: ranking cuts its shards by them.
    validation_prompts: count(validationPrompts['offsets']) - 1,
    test_prompts: count(testPrompts['offsets']) - 1,
    publish_prompts: count(publishPrompts['offsets']) - 1,
    templateTokens: templates.map((words) => words.length),
  };
  return { outputs, summary };
};

function renderRecipe(context: DomainJobContext): RenderRecipe {
  const fields = new RecipeFields('render', context.recipe);
  return {
    vocabularySize: fields.integer('vocabularySize', { min: 1, max: 1 << 18 }),
    historyItemsMax: fields.integer('historyItemsMax', { min: 1 }),
    templates: fields.strings('templates'),
    validationPrompts: fields.integer('validationPrompts', { min: 0 }),
    seed: fields.integer('seed', { min: 0 }),
  };
}

async function promptTokenizer(
  context: DomainJobContext,
  { texts, recipe, shape }: { texts: string[]; recipe: RenderRecipe; shape: ItemCodesShape },
): Promise<PromptTokenizer> {
  const base = context.inputs['base/tokenizer.json'];
  if (base === undefined) {
    return learnedPromptTokenizer(texts, { wordings: recipe.templates, vocabularySize: recipe.vocabularySize, shape });
  }
  const configJson = parseJson(await readText(inputPath(context, 'base/config.json')));
  return extendedPromptTokenizer({ tokenizerJson: parseJson(await readText(base)), configJson }, shape);
}

function count(tensor: Tensor | undefined): number {
  return tensor?.data.length ?? 0;
}
