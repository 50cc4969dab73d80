/**
 * The jobs that have checkpoints, as functions of the plan and of what earlier jobs gave: for the stages that run them, and
 * for whoever has to know afterwards what was run.
 */
import { adapterFiles, weightFiles } from './base-files.js';
import type { Digest, JsonObject, RunPlan } from './contract.js';
import type { JobRequest } from './gang-job.js';

/** Digest of an output of an earlier job. */
export type OutputOf = (job: string, output: string) => Digest;

/** Whether the run has vectors of its items' texts: those that the user brought, or made from the texts. */
export function hasTextVectors({ recipes, inputs }: RunPlan): boolean {
  return recipes.textVectors !== null || inputs['text_vectors'] !== undefined;
}

export function dccfJob({ recipes, checkpointIntervalSteps }: RunPlan, outputOf: OutputOf): JobRequest {
  return {
    name: 'dccf',
    kind: 'dccf',
    recipe: recipes.dccf,
    inputs: { graph: outputOf('ingest', 'graph') },
    workersMax: 1,
    checkpointIntervalSteps: checkpointIntervalSteps.dccf,
  };
}

export function codebooksJob(plan: RunPlan, outputOf: OutputOf): JobRequest {
  const { recipes, checkpointIntervalSteps } = plan;
  const inputs: Record<string, Digest> = { collaborative: outputOf('dccf', 'embeddings') };
  if (hasTextVectors(plan)) inputs['text'] = outputOf('text_vectors', 'text_vectors');
  return {
    name: 'codebooks',
    kind: 'codebooks',
    recipe: recipes.codebooks,
    inputs,
    workersMax: 1,
    checkpointIntervalSteps: checkpointIntervalSteps.codebooks,
  };
}

export function tuneJob({ recipes, checkpointIntervalSteps, baseFiles }: RunPlan, outputOf: OutputOf): JobRequest {
  return {
    name: 'tune',
    kind: 'tune',
    recipe: recipes.tune,
    inputs: {
      train_examples: outputOf('render', 'train_examples'),
      vocabulary: outputOf('render', 'vocabulary'),
      ...weightFiles(baseFiles),
      ...adapterFiles(baseFiles),
    },
    // A rank needs a lane of its own.
    workersMax: Number(recipes.tune['lanes']),
    checkpointIntervalSteps: checkpointIntervalSteps.tune,
  };
}

/** One job for each of `dense.seeds`; none where the run has no dense model. */
export function denseJobs(plan: RunPlan, outputOf: OutputOf): JobRequest[] {
  const recipes = denseRecipe(plan);
  if (recipes === null) return [];
  const { seeds, seed, ...recipe } = recipes;
  return Array.from({ length: Number(seeds) }, (_, index) => ({
    name: denseJobName(index),
    kind: 'dense' as const,
    recipe: { ...recipe, seed: Number(seed) + index },
    inputs: {
      dataset: outputOf('ingest', 'dataset'),
      ...(hasTextVectors(plan) ? { text_vectors: outputOf('text_vectors', 'text_vectors') } : {}),
    },
    // A rank needs a lane of its own.
    workersMax: Number(recipe['lanes']),
    checkpointIntervalSteps: plan.checkpointIntervalSteps.dense,
  }));
}

/** The lists of all dense models together; null where there are none. */
export function rankDenseJob(
  plan: RunPlan,
  outputOf: OutputOf,
  part: 'validation' | 'test' | 'publish',
): JobRequest | null {
  const recipe = denseRecipe(plan);
  if (recipe === null) return null;
  const models: [string, Digest][] = Array.from({ length: Number(recipe['seeds']) }, (_, index) => [
    `model_${String(index)}`,
    outputOf(denseJobName(index), 'model'),
  ]);
  return {
    name: `rank_dense/${part}`,
    kind: 'rank_dense',
    recipe: { part, topK: plan.recipes.rank['topK'] ?? null, first: 0, count: 0 },
    inputs: { dataset: outputOf('ingest', 'dataset'), ...Object.fromEntries(models) },
    workersMax: 1,
    checkpointIntervalSteps: 0,
  };
}

/** Plans of earlier versions do not have the field. */
function denseRecipe({ recipes }: RunPlan): JsonObject | null {
  return recipes.dense ?? null;
}

function denseJobName(index: number): string {
  return `dense/${String(index)}`;
}
