/** Job kind `fit_fusion`: co-occurrence settings and the weights of all sources, chosen on validation events. */
import { tuneCooccurrence } from './cooccurrence.js';
import { type Dataset, knownEventsOf, targetOf } from './dataset.js';
import { BadInputError, type DomainJob } from './domain-job.js';
import { writeJson } from './files.js';
import { cooccurrenceGrid, type Fusion } from './fusion-file.js';
import { fitWeights, type FittedUser, type FusionForm, FusionSources } from './fusion.js';
import { inputDataset, outputPath } from './job-files.js';
import { readNamedLists, readRankedLists, type RankedLists } from './ranked-lists.js';
import { RecipeFields } from './recipe-fields.js';

export const fitFusionJob: DomainJob = async (context) => {
  const fields = new RecipeFields('fit_fusion', context.recipe);
  const form = fusionForm(fields);
  const grid = fields.numbers('weights', { min: 0 });
  const dataset = await inputDataset(context);
  const lists = await fusedSources(context.inputs);
  const settings = tuneCooccurrence(dataset, cooccurrenceGrid(fields.section('cooccurrence')));
  const sources = new FusionSources(dataset, form, { lists, settings });
  const users = fittedUsers(dataset, sources, [...(lists.get('model')?.keys() ?? [])]);
  if (users.length === 0) throw new BadInputError('fit_fusion: expected lists of one or more users, got none');
  const fitted = fitWeights(users, { sources: sources.names.length, grid });
  context.report(1, 1, { users: users.length, ndcg_10: fitted.ndcg });
  const byName = (values: number[]): Record<string, number> =>
    Object.fromEntries(sources.names.map((name, i) => [name, values[i] ?? 0]));
  const fusion: Fusion = {
    cooccurrence: settings,
    weights: byName(fitted.weights),
    validation: {
      users: users.length,
      ndcg: byName(fitted.alone),
      fused: fitted.ndcg,
      tried: fitted.tried,
    },
  };
  const outputs = { fusion: 'fusion.json' };
  await writeJson(outputPath(context, outputs.fusion), fusion);
  return { outputs, summary: fusion };
};

export function fusionForm(fields: RecipeFields): FusionForm {
  return {
    candidates: fields.integer('candidates', { min: 1 }),
    cooccurrenceFloor: fields.number('cooccurrenceFloor', { min: Number.MIN_VALUE }),
    missingMargin: fields.number('missingMargin', { min: 0 }),
  };
}

/** The model's lists under `model`, the others by their names. */
export async function fusedSources(inputs: Record<string, string>): Promise<Map<string, RankedLists>> {
  return new Map([['model', await readRankedLists(inputs)], ...(await readNamedLists(inputs))]);
}

function fittedUsers(dataset: Dataset, sources: FusionSources, users: number[]): FittedUser[] {
  return users.map((user) => {
    const target = targetOf(dataset, user, 'validation');
    if (target === null) {
      throw new BadInputError(`fit_fusion: expected users with a validation event, got user ${user} without one`);
    }
    const candidates = sources.candidatesOf(user, knownEventsOf(dataset, user, 'validation'));
    return { ...candidates, target: candidates.items.indexOf(target) };
  });
}
