/** Job kind `evaluate`: HR and NDCG of the model's lists beside the baselines. */
import { BadInputError, type DomainJob } from './domain-job.js';
import { evaluate } from './evaluation.js';
import { writeJson } from './files.js';
import { inputDataset, outputPath } from './job-files.js';
import { readRankedLists } from './ranked-lists.js';
import { RecipeFields } from './recipe-fields.js';

export const evaluateJob: DomainJob = async (context) => {
  const fields = new RecipeFields('evaluate', context.recipe);
  const grid = fields.section('cooccurrence');
  const recipe = {
    cooccurrence: {
      windows: grid.numbers('windows', { min: 1, integer: true }),
      backwardWeights: grid.numbers('backwardWeights', { min: 0 }),
      historyDecays: grid.numbers('historyDecays', { min: 0 }),
    },
    k: fields.numbers('k', { min: 1, integer: true }),
  };
  const dataset = await inputDataset(context);
  const lists = {
    model: await readRankedLists(context.inputs),
    dense: 'dense_lists_0' in context.inputs ? await readRankedLists(context.inputs, 'dense_lists_') : null,
  };
  const metrics = evaluate(dataset, lists, recipe);
  if (metrics.users === 0) throw new BadInputError('evaluate: expected at least one user with three events, got none');
  context.report(1, 1, { users: metrics.users });
  const outputs = { metrics: 'metrics.json' };
  await writeJson(outputPath(context, outputs.metrics), metrics);
  return { outputs, summary: metrics };
};
