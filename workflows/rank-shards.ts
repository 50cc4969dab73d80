/** Fan-out of ranking: a prompt file is cut into shards of a size that the run fixes, each an independent job. */
import { ApplicationFailure } from '@temporalio/workflow';

import { weightFiles } from './base-files.js';
import { rankDenseJob } from './native-jobs.js';
import type { Stage } from './stage.js';

/** Shards under way at once; more would only queue for workers. */
const SHARDS_AT_ONCE = 16;

/** What is ranked: a user's event to find, or what comes next. */
export type RankedPart = 'validation' | 'test' | 'publish';

/**
 * The lists of every source for a part, as inputs of the jobs that take several: the model's are `lists_<shard>`, those of a
 * source of another name `<name>_lists_<shard>`.
 */
export async function rankSources(stage: Stage, part: RankedPart): Promise<Record<string, string>> {
  const ranking = rankDenseJob(stage.plan, stage.outputOf, part);
  const [lists] = await Promise.all([rankShards(stage, `${part}_prompts`), ranking && stage.run(ranking)]);
  return ranking === null ? lists : { ...lists, dense_lists_0: stage.output(ranking.name, 'lists') };
}

/** Ranks every prompt of `render`'s output `prompts`; answers `lists_<shard>` to digest, for the jobs that merge them. */
async function rankShards(stage: Stage, prompts: `${RankedPart}_prompts`): Promise<Record<string, string>> {
  const { recipes, rankShardPrompts, baseFiles } = stage.plan;
  const count = stage.job('render').summary[prompts];
  if (typeof count !== 'number') throw ApplicationFailure.nonRetryable(`render's summary has no number ${prompts}`);
  const shards = Math.ceil(count / rankShardPrompts);
  const name = (shard: number): string => `rank/${prompts}/${String(shard)}`;
  const requests = Array.from({ length: shards }, (_, shard) => ({
    name: name(shard),
    kind: 'rank' as const,
    recipe: {
      ...recipes.rank,
      first: shard * rankShardPrompts,
      count: Math.min(rankShardPrompts, count - shard * rankShardPrompts),
    },
    inputs: {
      model: stage.output('tune', 'model'),
      prompts: stage.output('render', prompts),
      vocabulary: stage.output('render', 'vocabulary'),
      ...weightFiles(baseFiles),
    },
    workersMax: 1,
    checkpointIntervalSteps: 0,
  }));
  await stage.runAll(requests, SHARDS_AT_ONCE);
  return Object.fromEntries(requests.map((_, shard) => [`lists_${String(shard)}`, stage.output(name(shard), 'lists')]));
}
