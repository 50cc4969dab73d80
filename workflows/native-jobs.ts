/**
 * The jobs that have checkpoints, as functions of the plan and of what earlier jobs gave: for the stages that run them, and
 * for whoever has to know afterwards what was run.
 */
import { adapterFiles, weightFiles } from './base-files.js';
import type { Digest, Json, JsonObject, RunPlan } from './contract.js';
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

/** The job that makes the item text vectors; null where a run has none. */
function textJobName(plan: RunPlan): 'embed_text' | 'text_vectors' | null {
  // What the user brings takes the place of what would be made of the texts.
  if (hasTextVectors(plan)) return 'text_vectors';
  return plan.recipes.embedText == null ? null : 'embed_text';
}

/** Ids of an earlier run by today's numbers of the items; null: none stay. */
export function carryIdsJob({ earlierIds }: RunPlan, outputOf: OutputOf): JobRequest | null {
  if (earlierIds == null) return null;
  return {
    name: 'carry_ids',
    kind: 'carry_ids',
    recipe: {},
    inputs: {
      catalogue: outputOf('ingest', 'catalogue'),
      earlier_catalogue: earlierIds.catalogue,
      earlier_codes: earlierIds.codes,
      ...(earlierIds.published === null ? {} : { earlier_published: earlierIds.published }),
    },
    workersMax: 1,
    checkpointIntervalSteps: 0,
  };
}

/** Null where the run clusters the item vectors themselves. */
export function rqvaeJob(plan: RunPlan, outputOf: OutputOf): JobRequest | null {
  const { recipes, checkpointIntervalSteps } = plan;
  if (recipes.rqvae == null) return null;
  const { levels, codes, collaborativeWeight, textWeight, holdoutShare, seed } = recipes.codebooks;
  return {
    name: 'rqvae',
    kind: 'rqvae',
    recipe: {
      ...recipes.rqvae,
      ...{ levels, codes, collaborativeWeight, textWeight, holdoutShare, seed },
    } as JsonObject,
    inputs: itemVectors(plan, outputOf),
    workersMax: 1,
    checkpointIntervalSteps: checkpointIntervalSteps.codebooks,
  };
}

/** The collaborative vectors, and those of the texts where the run has them. */
function itemVectors(plan: RunPlan, outputOf: OutputOf): Record<string, Digest> {
  const text = textJobName(plan);
  return {
    collaborative: outputOf('dccf', 'embeddings'),
    ...(text === null ? {} : { text: outputOf(text, 'text_vectors') }),
  };
}

/** What is clustered: the item vectors joined by their weights, or the latents that `rqvae` made of them. */
function clusteredRows(
  plan: RunPlan,
  outputOf: OutputOf,
): { inputs: Record<string, Digest>; weights: { collaborativeWeight: Json; textWeight: Json } } {
  if (plan.recipes.rqvae != null) {
    const inputs = { collaborative: outputOf('rqvae', 'latents') };
    return { inputs, weights: { collaborativeWeight: 1, textWeight: 0 } };
  }
  const { collaborativeWeight = null, textWeight = null } = plan.recipes.codebooks;
  return { inputs: itemVectors(plan, outputOf), weights: { collaborativeWeight, textWeight } };
}

export function codebooksJob(plan: RunPlan, outputOf: OutputOf): JobRequest {
  const { recipes, checkpointIntervalSteps } = plan;
  const { inputs, weights } = clusteredRows(plan, outputOf);
  const published = plan.earlierIds == null ? {} : { published: outputOf('carry_ids', 'published') };
  return {
    name: 'codebooks',
    kind: 'codebooks',
    recipe: { ...recipes.codebooks, ...weights },
    inputs: { ...inputs, ...published },
    workersMax: 1,
    checkpointIntervalSteps: checkpointIntervalSteps.codebooks,
  };
}

/** Null where the run has no alignment, or goes on with the codebooks of an earlier run: codes are then those of `codebooks`. */
export function alignCodesJob(plan: RunPlan, outputOf: OutputOf): JobRequest | null {
  const { recipes, checkpointIntervalSteps } = plan;
  const text = textJobName(plan);
  if (recipes.alignment == null || plan.earlierIds != null || text === null) return null;
  const { beam = null, seed = null } = recipes.codebooks;
  const { inputs, weights } = clusteredRows(plan, outputOf);
  const { weight, prefixWeight, temperature, steps, batchItems, learningRate } = recipes.alignment;
  return {
    name: 'align_codes',
    kind: 'align_codes',
    // The rows are those that were clustered, so they are made by the same weights.
    recipe: {
      ...{ weight, prefixWeight, temperature, steps, batchItems, learningRate },
      ...{ beam, seed, ...weights },
    } as JsonObject,
    inputs: { ...inputs, text: outputOf(text, 'text_vectors'), codes: outputOf('codebooks', 'codes') },
    workersMax: 1,
    checkpointIntervalSteps: checkpointIntervalSteps.codebooks,
  };
}

/** The job whose output `codes` the run goes on with. */
export function codesJobName({ recipes, earlierIds }: RunPlan): 'codebooks' | 'align_codes' {
  return recipes.alignment == null || earlierIds != null ? 'codebooks' : 'align_codes';
}

/** The codes' places in the space of the texts, where the rows of the item tokens begin; null: they are drawn. */
function alignedRows({ recipes, baseFiles, earlierIds }: RunPlan, outputOf: OutputOf): Digest | null {
  // An adapter brings token rows of its own.
  if (recipes.alignment?.['initialiseTokens'] !== true || Object.keys(adapterFiles(baseFiles)).length > 0) return null;
  return earlierIds == null ? outputOf('align_codes', 'aligned') : earlierIds.aligned;
}

export function tuneJob(plan: RunPlan, outputOf: OutputOf): JobRequest {
  const { recipes, checkpointIntervalSteps, baseFiles } = plan;
  const aligned = alignedRows(plan, outputOf);
  return {
    name: 'tune',
    kind: 'tune',
    recipe: recipes.tune,
    inputs: {
      train_examples: outputOf('render', 'train_examples'),
      vocabulary: outputOf('render', 'vocabulary'),
      ...weightFiles(baseFiles),
      ...adapterFiles(baseFiles),
      ...(aligned === null ? {} : { aligned }),
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
  const text = textJobName(plan);
  return Array.from({ length: Number(seeds) }, (_, index) => ({
    name: denseJobName(index),
    kind: 'dense' as const,
    recipe: { ...recipe, seed: Number(seed) + index },
    inputs: {
      dataset: outputOf('ingest', 'dataset'),
      ...(text === null ? {} : { text_vectors: outputOf(text, 'text_vectors') }),
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
