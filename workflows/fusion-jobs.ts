/**
 * Fusion: weights are fitted once, in stage `evaluate`, on validation events; with them the lists of all sources become one, for
 * the test events and for publishing.
 */
import type { Digest, JsonObject } from './contract.js';
import { rankSources } from './rank-shards.js';
import type { Stage } from './stage.js';

type Lists = Record<string, Digest>;

/** Runs the fit where the run fuses; answers the input `fusion` of the jobs after it, or none. */
export async function fitFusion(stage: Stage): Promise<{ fusion?: Digest }> {
  const recipe = formOf(stage);
  if (recipe === null) return {};
  const { recipes } = stage.plan;
  await stage.run({
    name: 'fit_fusion',
    kind: 'fit_fusion',
    recipe: {
      ...recipe,
      weights: recipes.fusion?.['weights'] ?? null,
      cooccurrence: recipes.evaluate['cooccurrence'] ?? null,
    },
    inputs: { dataset: stage.output('ingest', 'dataset'), ...(await rankSources(stage, 'validation')) },
    workersMax: 1,
    checkpointIntervalSteps: 0,
  });
  return { fusion: stage.output('fit_fusion', 'fusion') };
}

/** Fuses the sources' lists; null where the run does not fuse. */
export async function fusedLists(stage: Stage, part: 'test' | 'publish', lists: Lists): Promise<Digest | null> {
  const recipe = formOf(stage);
  if (recipe === null) return null;
  const name = `fuse/${part}`;
  await stage.run({
    name,
    kind: 'fuse',
    recipe: { ...recipe, part, topK: stage.plan.recipes.rank['topK'] ?? null },
    inputs: {
      dataset: stage.output('ingest', 'dataset'),
      fusion: stage.output('fit_fusion', 'fusion'),
      ...lists,
    },
    workersMax: 1,
    checkpointIntervalSteps: 0,
  });
  return stage.output(name, 'lists');
}

/** What both kinds are told of how candidates are made. Plans of earlier versions do not have the field. */
function formOf({ plan }: Stage): JsonObject | null {
  const fusion = plan.recipes.fusion ?? null;
  if (fusion === null) return null;
  const { candidates = null, cooccurrenceFloor = null, missingMargin = null } = fusion;
  return { candidates, cooccurrenceFloor, missingMargin };
}
