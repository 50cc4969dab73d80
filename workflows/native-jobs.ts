/**
 * The jobs that have checkpoints, as functions of the plan and of what earlier jobs gave: for the stages that run them, and
 * for whoever has to know afterwards what was run.
 */
import { adapterFiles, weightFiles } from './base-files.js';
import type { Digest, JsonObject, RunPlan } from './contract.js';
import type { JobRequest } from './gang-job.js';

/** Digest of an output of an earlier job. */
export type OutputOf = (job: string, output: string) => Digest;

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
function textJobName({ embedText, textVectors }: RunPlan['recipes']): 'embed_text' | 'text_vectors' | null {
  if (embedText != null) return 'embed_text';
  return textVectors === null ? null : 'text_vectors';
}

export function codebooksJob({ recipes, checkpointIntervalSteps }: RunPlan, outputOf: OutputOf): JobRequest {
  const inputs: Record<string, Digest> = { collaborative: outputOf('dccf', 'embeddings') };
  const text = textJobName(recipes);
  if (text !== null) inputs['text'] = outputOf(text, 'text_vectors');
  return {
    name: 'codebooks',
    kind: 'codebooks',
    recipe: recipes.codebooks,
    inputs,
    workersMax: 1,
    checkpointIntervalSteps: checkpointIntervalSteps.codebooks,
  };
}

/** Null where the run has no alignment: codes are then those of the clustering. */
export function alignCodesJob({ recipes, checkpointIntervalSteps }: RunPlan, outputOf: OutputOf): JobRequest | null {
  const text = textJobName(recipes);
  if (recipes.alignment == null || text === null) return null;
  const { beam, collaborativeWeight, textWeight, seed } = recipes.codebooks;
  const { weight, prefixWeight, temperature, steps, batchItems, learningRate } = recipes.alignment;
  return {
    name: 'align_codes',
    kind: 'align_codes',
    // The rows are those that were clustered, so they are made by the same weights.
    recipe: {
      ...{ weight, prefixWeight, temperature, steps, batchItems, learningRate },
      ...{ beam, collaborativeWeight, textWeight, seed },
    } as JsonObject,
    inputs: {
      collaborative: outputOf('dccf', 'embeddings'),
      text: outputOf(text, 'text_vectors'),
      codes: outputOf('codebooks', 'codes'),
    },
    workersMax: 1,
    checkpointIntervalSteps: checkpointIntervalSteps.codebooks,
  };
}

/** The job whose output `codes` the run goes on with. */
export function codesJobName({ recipes }: RunPlan): 'codebooks' | 'align_codes' {
  return recipes.alignment == null ? 'codebooks' : 'align_codes';
}

export function tuneJob({ recipes, checkpointIntervalSteps, baseFiles }: RunPlan, outputOf: OutputOf): JobRequest {
  // An adapter brings token rows of its own.
  const begins = recipes.alignment?.['initialiseTokens'] === true && Object.keys(adapterFiles(baseFiles)).length === 0;
  const alignedRows: Record<string, Digest> = begins ? { aligned: outputOf('align_codes', 'aligned') } : {};
  return {
    name: 'tune',
    kind: 'tune',
    recipe: recipes.tune,
    inputs: {
      train_examples: outputOf('render', 'train_examples'),
      vocabulary: outputOf('render', 'vocabulary'),
      ...weightFiles(baseFiles),
      ...adapterFiles(baseFiles),
      ...alignedRows,
    },
    // A rank needs a lane of its own.
    workersMax: Number(recipes.tune['lanes']),
    checkpointIntervalSteps: checkpointIntervalSteps.tune,
  };
}
