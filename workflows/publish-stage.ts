/** Stage `publish`: beam search from every user's whole history, assembled into the list that serving hands out. */
import type { StageInput, StageResult } from './contract.js';
import { rankShards } from './rank-shards.js';
import { runStage } from './stage.js';

export function publishStage(input: StageInput): Promise<StageResult> {
  return runStage('publish', input, async (stage) => {
    const lists = await rankShards(stage, 'publish_prompts');
    await stage.run({
      name: 'assemble',
      kind: 'assemble',
      recipe: stage.plan.recipes.assemble,
      inputs: {
        dataset: stage.output('ingest', 'dataset'),
        catalogue: stage.output('ingest', 'catalogue'),
        users: stage.output('ingest', 'users'),
        ...lists,
      },
      workersMax: 1,
      checkpointIntervalSteps: 0,
    });
  });
}
