/** Job kind `evaluate`: HR and NDCG of every source's lists beside the baselines, with intervals, groups and exposure. */
import { BadInputError, type DomainJob } from './domain-job.js';
import { evaluate, headlinesOf } from './evaluation.js';
import { cooccurrenceGrid, readFusion } from './fusion-file.js';
import { writeJson } from './files.js';
import { inputDataset, outputPath } from './job-files.js';
import { readNamedLists, readRankedLists } from './ranked-lists.js';
import { RecipeFields } from './recipe-fields.js';

export const evaluateJob: DomainJob = async (context) => {
  const fields = new RecipeFields('evaluate', context.recipe);
  const recipe = {
    cooccurrence: cooccurrenceGrid(fields.section('cooccurrence')),
    k: fields.numbers('k', { min: 1, integer: true }),
    resamples: fields.integer('resamples', { min: 1, max: 1_000_000 }),
    seed: fields.integer('seed', { min: 0 }),
  };
  const dataset = await inputDataset(context);
  const lists = { model: await readRankedLists(context.inputs), named: await readNamedLists(context.inputs) };
  const fusion = context.inputs['fusion'];
  const settings = fusion === undefined ? null : (await readFusion(fusion)).cooccurrence;
  const metrics = evaluate(dataset, lists, { recipe, settings });
  if (metrics.users === 0) throw new BadInputError('evaluate: expected at least one user with three events, got none');
  context.report(1, 1, { users: metrics.users });
  const outputs = { metrics: 'metrics.json' };
  await writeJson(outputPath(context, outputs.metrics), metrics);
  return { outputs, summary: headlinesOf(metrics) };
};
