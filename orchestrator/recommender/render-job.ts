/**
 * Job kind `render`: tokenizer, vocabulary, training examples of every alignment task and prompts. With the optional inputs
 * `base/tokenizer.json` and `base/config.json` the base model's tokenizer is extended; otherwise one is learned from the item
 * text.
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
import { publishPromptTensors, testPromptTensors, validationPromptTensors } from './prompts.js';
import { RecipeFields } from './recipe-fields.js';
import { type RenderRecipe } from './recipes.js';
import { SafetensorsFile, type Tensor, writeSafetensors } from './safetensors.js';
import { itemTokenIds, readSemanticIds } from './semantic-ids.js';
import { parseTasks, trainingExamples } from './tasks/registry.js';
import { type TaskName, type TaskRecipe, type TasksRecipe, TEXT_FIELDS } from './tasks/task-recipes.js';

export const renderJob: DomainJob = async (context) => {
  const recipe = renderRecipe(context);
  const parsed = parseTasks(recipe.tasks);
  const dataset = await inputDataset(context);
  const catalogue = await readCatalogue(inputPath(context, 'catalogue'));
  if (catalogue.length !== dataset.itemCount) {
    throw new BadInputError(
      `render: expected ${dataset.itemCount} catalogue lines as in the dataset, got ${catalogue.length}`,
    );
  }
  const ids = readSemanticIds(await SafetensorsFile.open(inputPath(context, 'codes')), dataset.itemCount);
  const tokenizer = await promptTokenizer(context, {
    texts: catalogue.map(itemTextOf),
    wordings: parsed.wordings,
    vocabularySize: recipe.vocabularySize,
    shape: ids,
  });
  context.report(1, 2, { vocabulary: tokenizer.vocabularySize });
  const itemTokens = itemTokenIds(ids, tokenizer.firstItemToken);
  const start = tokenizer.bosToken === null ? [] : [tokenizer.bosToken];
  const templates = parsed.sequential.map((words) => [...start, ...tokenizer.encode(words)]);
  const form = {
    templates,
    itemTokens,
    levels: ids.levels,
    historyItemsMax: recipe.historyItemsMax,
    seed: recipe.seed,
  };
  const examples = trainingExamples({
    dataset,
    catalogue,
    tasks: recipe.tasks,
    parsed,
    form,
    textOrder: recipe.textOrder,
    textTokensMax: recipe.textTokensMax,
    start,
    end: tokenizer.eosToken === null ? [] : [tokenizer.eosToken],
    encode: (text) => tokenizer.encode(text),
  });
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
  const { tensors, metadata } = examples.tensors();
  await writeSafetensors(outputPath(context, outputs.train_examples), tensors, metadata);
  const validationPrompts = validationPromptTensors(dataset, { form, usersMax: recipe.validationPrompts });
  await writeSafetensors(outputPath(context, outputs.validation_prompts), validationPrompts);
  const testPrompts = testPromptTensors(dataset, form);
  const publishPrompts = publishPromptTensors(dataset, form);
  await writeSafetensors(outputPath(context, outputs.test_prompts), testPrompts);
  await writeSafetensors(outputPath(context, outputs.publish_prompts), publishPrompts);
  context.report(2, 2, { examples: examples.examples });
  const summary = {
    vocabularySize: tokenizer.vocabularySize,
    firstItemToken: tokenizer.firstItemToken,
    examples: examples.examples,
    tokens: examples.tokens,
    // Prompts by output name: ranking cuts its shards by them.
    validation_prompts: count(validationPrompts['offsets']) - 1,
    test_prompts: count(testPrompts['offsets']) - 1,
    publish_prompts: count(publishPrompts['offsets']) - 1,
    templateTokens: templates.map((words) => words.length),
    tasks: examples.counts(),
  };
  return { outputs, summary };
};

function renderRecipe(context: DomainJobContext): RenderRecipe {
  const fields = new RecipeFields('render', context.recipe);
  return {
    vocabularySize: fields.integer('vocabularySize', { min: 1, max: 1 << 18 }),
    historyItemsMax: fields.integer('historyItemsMax', { min: 1 }),
    tasks: tasksRecipe(fields.section('tasks')),
    textOrder: fields.distinctOf('textOrder', TEXT_FIELDS),
    textTokensMax: fields.integer('textTokensMax', { min: 1 }),
    validationPrompts: fields.integer('validationPrompts', { min: 0 }),
    seed: fields.integer('seed', { min: 0 }),
  };
}

function tasksRecipe(tasks: RecipeFields): TasksRecipe {
  const common = (name: TaskName): TaskRecipe => {
    const fields = tasks.section(name);
    return { weight: fields.number('weight', { min: 0 }), templates: fields.strings('templates') };
  };
  return {
    sequential: common('sequential'),
    text: common('text'),
    query: { ...common('query'), intentions: tasks.section('query').strings('intentions') },
    negative: common('negative'),
    ranking: {
      ...common('ranking'),
      negatives: tasks.section('ranking').integer('negatives', { min: 1, max: NEGATIVES_MAX }),
    },
  };
}

/** A group's sequences are in one lane. */
const NEGATIVES_MAX = 64;

async function promptTokenizer(
  context: DomainJobContext,
  {
    texts,
    wordings,
    vocabularySize,
    shape,
  }: { texts: string[]; wordings: string[]; vocabularySize: number; shape: ItemCodesShape },
): Promise<PromptTokenizer> {
  const base = context.inputs['base/tokenizer.json'];
  if (base === undefined) return learnedPromptTokenizer(texts, { wordings, vocabularySize, shape });
  const configJson = parseJson(await readText(inputPath(context, 'base/config.json')));
  return extendedPromptTokenizer({ tokenizerJson: parseJson(await readText(base)), configJson }, shape);
}

function count(tensor: Tensor | undefined): number {
  return tensor?.data.length ?? 0;
}
