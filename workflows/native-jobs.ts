/**
 * The jobs that have checkpoints, as functions of the plan and of what earlier jobs gave: for the stages that run them, and
 * for whoever has to know afterwards what was run.
 */
import { adapterFiles, weightFiles } from './base-files.js';
import type { Digest, RunPlan } from './contract.js';
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

export function codebooksJob({ recipes, checkpointIntervalSteps }: RunPlan, outputOf: OutputOf): JobRequest {
  const inputs: Record<string, Digest> = { collaborative: outputOf('dccf', 'embeddings') };
  if (recipes.textVectors !== null) inputs['text'] = outputOf('text_vectors', 'text_vectors');
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
