/**
 * What a run file may say of the alignment tasks, and its defaults.
 *
 * 1. `weight` is the number of the task's examples for every training sequence of the shoppers' histories; 0 leaves it out.
 * 2. Numbers and names of tasks are part of what is drawn and written: a new task comes last.
 */
import { QUERY_TEMPLATES } from './query.js';
import { NEGATIVE_TEMPLATES } from './negative.js';
import { SEQUENTIAL_TEMPLATES } from './sequential-wordings.js';
import { TEXT_TEMPLATES } from './text.js';

export const TASK_NAMES = ['sequential', 'text', 'query', 'negative', 'ranking'] as const;
export type TaskName = (typeof TASK_NAMES)[number];

export type TaskRecipe = { weight: number; templates: string[] };
/** `intentions`: wordings of what a shopper may look for, made from the words of an item. */
export type QueryRecipe = TaskRecipe & { intentions: string[] };
/** `negatives`: items sampled beside each chosen one. */
export type RankingRecipe = TaskRecipe & { negatives: number };
export type TasksRecipe = {
  sequential: TaskRecipe;
  text: TaskRecipe;
  query: QueryRecipe;
  negative: TaskRecipe;
  ranking: RankingRecipe;
};

export const TEXT_FIELDS = ['title', 'brand', 'categories', 'keywords', 'description'] as const;
export type TextField = (typeof TEXT_FIELDS)[number];

export const INTENTION_WORDINGS: readonly string[] = [
  '{words}',
  '{brand} {category}',
  '{keywords}',
  '{words} {category}',
];

export function defaultTasks(): TasksRecipe {
  return {
    sequential: { weight: 1, templates: [...SEQUENTIAL_TEMPLATES] },
    text: { weight: 0, templates: [...TEXT_TEMPLATES] },
    query: { weight: 0, templates: [...QUERY_TEMPLATES], intentions: [...INTENTION_WORDINGS] },
    negative: { weight: 0, templates: [...NEGATIVE_TEMPLATES] },
    ranking: { weight: 0, templates: [...SEQUENTIAL_TEMPLATES], negatives: 3 },
  };
}
