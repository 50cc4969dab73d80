/** Fan-out of ranking: a prompt file is cut into shards of a size that the run fixes, each an independent job. */
import { ApplicationFailure } from '@temporalio/workflow';

import { weightFiles } from './base-files.js';
import type { Stage } from './stage.js';

/** Shards under way at once; more would only queue for workers. */
const SHARDS_AT_ONCE = 16;

/** Ranks every prompt of `render`'s output `prompts`; answers `lists_<shard>` to digest, for the jobs that merge them. */
export async function rankShards(
  stage: Stage,
  prompts: 'test_prompts' | 'publish_prompts',
): Promise<Record<string, string>> {
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
