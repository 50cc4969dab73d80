/**
 * The alignment tasks of a recipe, parsed and rendered: sequential, text, query, negative (yes or no) and ranking.
 *
 * 1. Every template is parsed before anything is rendered, also those of tasks with weight 0: a bad one is bad input by its
 *    place.
 * 2. Tasks are rendered in the order of their numbers; training draws its own order over all.
 */
import { type CatalogueItem } from '../catalogue.js';
import { type Dataset } from '../dataset.js';
import { type PromptForm } from '../prompts.js';
import { ExampleSet } from './example-set.js';
import { checkIntentionWording, intentionsOf } from './intentions.js';
import { ItemTexts } from './item-text.js';
import { NEGATIVE_FORM } from './negative.js';
import { QUERY_FORM } from './query.js';
import { addRankingGroups } from './ranking.js';
import { addSequentialExamples, countWindows } from './sequential.js';
import { TASK_NAMES, type TasksRecipe, type TextField } from './task-recipes.js';
import { addTemplatedExamples, type TaskSources } from './templated-examples.js';
import {
  parseSequentialWords,
  parseTemplate,
  type Template,
  type TemplateForm,
  WordingError,
  wordsOfTemplate,
} from './template.js';
import { TEXT_FORM } from './text.js';
import { TrainingEvents } from './training-events.js';

const FORMS = { text: TEXT_FORM, query: QUERY_FORM, negative: NEGATIVE_FORM } as const;
const TEMPLATED = ['text', 'query', 'negative'] as const;

export interface ParsedTasks {
  sequential: string[];
  ranking: string[];
  templated: Record<(typeof TEMPLATED)[number], Template[]>;
  /** What a learned tokenizer should know: words of all templates of the tasks that are in use. */
  wordings: string[];
}

export function parseTasks(tasks: TasksRecipe): ParsedTasks {
  if (TASK_NAMES.every((name) => tasks[name].weight === 0)) {
    throw new WordingError(['render', 'tasks'], 'expected a task with a weight above 0, got none');
  }
  const path = (task: string, i: number): string[] => ['render', 'tasks', task, 'templates', String(i)];
  const words = (task: 'sequential' | 'ranking'): string[] =>
    tasks[task].templates.map((source, i) => parseSequentialWords(source, path(task, i)));
  const parsed = (task: (typeof TEMPLATED)[number]): Template[] => {
    const form: TemplateForm = FORMS[task];
    return tasks[task].templates.map((source, i) => parseTemplate(source, { path: path(task, i), form }));
  };
  tasks.query.intentions.forEach((wording, i) =>
    checkIntentionWording(wording, ['render', 'tasks', 'query', 'intentions', String(i)]),
  );
  const sequential = words('sequential');
  const ranking = words('ranking');
  const templated = { text: parsed('text'), query: parsed('query'), negative: parsed('negative') };
  const inUse = TEMPLATED.filter((task) => tasks[task].weight > 0).flatMap((task) =>
    templated[task].flatMap(wordsOfTemplate),
  );
  const ranked = tasks.ranking.weight > 0 ? ranking : [];
  // Of the sequential task always: the prompts of the beam search are made of its first one.
  return { sequential, ranking, templated, wordings: [...new Set([...sequential, ...inUse, ...ranked])] };
}

export interface RenderInputs {
  dataset: Dataset;
  catalogue: readonly CatalogueItem[];
  tasks: TasksRecipe;
  parsed: ParsedTasks;
  form: PromptForm;
  textOrder: readonly TextField[];
  textTokensMax: number;
  start: number[];
  end: number[];
  encode: (text: string) => number[];
}

export function trainingExamples(inputs: RenderInputs): ExampleSet {
  const { dataset, catalogue, tasks, parsed, form, encode } = inputs;
  const examples = new ExampleSet();
  addSequentialExamples(examples, { dataset, form, weight: tasks.sequential.weight });
  const others = [...TEMPLATED, 'ranking' as const].some((task) => tasks[task].weight > 0);
  if (!others) return examples;
  const windows = countWindows(dataset, form.historyItemsMax);
  const countOf = (weight: number): number => Math.round(weight * windows);
  const usesIntentions = tasks.query.weight > 0;
  const sources: TaskSources = {
    events: new TrainingEvents(dataset),
    itemCount: dataset.itemCount,
    texts: new ItemTexts({
      catalogue,
      intentions: usesIntentions ? intentionsOf(catalogue, tasks.query.intentions) : [],
      textOrder: inputs.textOrder,
      tokensMax: inputs.textTokensMax,
      encode,
    }),
    form,
    start: inputs.start,
    end: inputs.end,
    encode,
  };
  for (const task of TEMPLATED) {
    const count = countOf(tasks[task].weight);
    addTemplatedExamples(examples, { task, templates: parsed.templated[task], count, sources });
  }
  const words = parsed.ranking.map((wording) => [...inputs.start, ...encode(wording)]);
  const { weight, negatives } = tasks.ranking;
  addRankingGroups(examples, { words, count: countOf(weight), negatives, sources });
  return examples;
}
