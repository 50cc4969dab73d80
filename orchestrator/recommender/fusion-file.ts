/** The file `fusion`: what was fitted on validation events, for whoever fuses or evaluates after it. */
import { type CooccurrenceSettings } from './cooccurrence.js';
import { BadInputError } from './domain-job.js';
import { parseJson, readText } from './files.js';
import { type RecipeFields } from './recipe-fields.js';
import { type CooccurrenceGrid } from './recipes.js';

export type Fusion = {
  cooccurrence: CooccurrenceSettings;
  /** Source to weight: `model`, `cooccurrence`, and every other source of lists. */
  weights: Record<string, number>;
  validation: {
    users: number;
    /** NDCG@10 on these users of each source alone, as a weight of one gives it, and of the fused list. */
    ndcg: Record<string, number>;
    fused: number;
    /** Combinations of weights that were scored. */
    tried: number;
  };
};

export async function readFusion(path: string): Promise<Fusion> {
  const value = parseJson(await readText(path)) as Partial<Fusion> | null | undefined;
  const { cooccurrence, weights } = value ?? {};
  if (typeof cooccurrence !== 'object' || typeof weights !== 'object') {
    throw new BadInputError('fusion: expected {"cooccurrence", "weights"} as job fit_fusion writes them, got others');
  }
  return value as Fusion;
}

export function cooccurrenceGrid(grid: RecipeFields): CooccurrenceGrid {
  return {
    windows: grid.numbers('windows', { min: 1, integer: true }),
    backwardWeights: grid.numbers('backwardWeights', { min: 0 }),
    historyDecays: grid.numbers('historyDecays', { min: 0 }),
  };
}
