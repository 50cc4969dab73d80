/** Job kind `assemble`: the list that is published, one line a user. */
import { readCatalogue, readUsers } from './catalogue.js';
import { BadInputError, type DomainJob } from './domain-job.js';
import { writeNdjson } from './files.js';
import { inputDataset, inputPath, outputPath } from './job-files.js';
import { publishedLists } from './published-lists.js';
import { readRankedLists } from './ranked-lists.js';
import { RecipeFields } from './recipe-fields.js';

export const assembleJob: DomainJob = async (context) => {
  const k = new RecipeFields('assemble', context.recipe).integer('k', { min: 1 });
  const dataset = await inputDataset(context);
  const catalogue = await readCatalogue(inputPath(context, 'catalogue'));
  const userIds = await readUsers(inputPath(context, 'users'));
  if (userIds.length !== dataset.userCount || catalogue.length !== dataset.itemCount) {
    throw new BadInputError(
      `assemble: expected ${dataset.userCount} users and ${dataset.itemCount} items as in the dataset, ` +
        `got ${userIds.length} and ${catalogue.length}`,
    );
  }
  const lists = [...publishedLists({ dataset, catalogue, userIds }, await readRankedLists(context.inputs), k)];
  context.report(1, 1, { users: lists.length });
  const outputs = { published: 'published.ndjson' };
  await writeNdjson(outputPath(context, outputs.published), lists);
  const shortLists = lists.filter(({ items }) => items.length < k).length;
  return { outputs, summary: { users: lists.length, shortLists } };
};
