/** Job kind `fuse`: the lists of all sources become one, by the weights that were fitted. */
import { type Dataset, eventsOf, knownEventsOf } from './dataset.js';
import { BadInputError, type DomainJob } from './domain-job.js';
import { fusedSources, fusionForm } from './fit-fusion-job.js';
import { fusedList, FusionSources } from './fusion.js';
import { readFusion } from './fusion-file.js';
import { inputDataset, inputPath, outputPath } from './job-files.js';
import { RecipeFields } from './recipe-fields.js';
import { writeSafetensors } from './safetensors.js';

/** Behind the end of a list, as in the lists of `rank`. */
const NO_SCORE = -1e30;

export const fuseJob: DomainJob = async (context) => {
  const fields = new RecipeFields('fuse', context.recipe);
  const part = fields.oneOf('part', ['test', 'publish']);
  const topK = fields.integer('topK', { min: 1 });
  const dataset = await inputDataset(context);
  const { cooccurrence: settings, weights } = await readFusion(inputPath(context, 'fusion'));
  const lists = await fusedSources(context.inputs);
  const sources = new FusionSources(dataset, fusionForm(fields), { lists, settings });
  const inOrder = sources.names.map((name) => weightOf(weights, name));
  const users = [...(lists.get('model')?.keys() ?? [])].sort((a, b) => a - b);
  const items = new Int32Array(users.length * topK).fill(-1);
  const scores = new Float32Array(users.length * topK).fill(NO_SCORE);
  users.forEach((user, row) => {
    const candidates = sources.candidatesOf(user, historyOf(dataset, user, part));
    fusedList(candidates, { weights: inOrder, k: topK }).forEach(({ item, score }, place) => {
      items[row * topK + place] = item;
      scores[row * topK + place] = score;
    });
  });
  context.report(1, 1, { users: users.length });
  const outputs = { lists: 'lists.safetensors' };
  await writeSafetensors(outputPath(context, outputs.lists), {
    users: { shape: [users.length], data: Int32Array.from(users) },
    items: { shape: [users.length, topK], data: items },
    scores: { shape: [users.length, topK], data: scores },
  });
  return { outputs, summary: { users: users.length } };
};

function historyOf(dataset: Dataset, user: number, part: 'test' | 'publish'): Int32Array {
  return part === 'test' ? knownEventsOf(dataset, user, part) : eventsOf(dataset, user);
}

function weightOf(weights: Record<string, number>, source: string): number {
  const weight = weights[source];
  if (weight !== undefined) return weight;
  const known = Object.keys(weights).join(', ');
  throw new BadInputError(
    `fuse: expected sources that have weights (${known}), got ${source}; fit with the same sources`,
  );
}
