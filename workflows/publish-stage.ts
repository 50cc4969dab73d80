/** Stage `publish`: ranking from every user's whole history, fused where the run does, assembled into the list that serving hands out. */
import type { StageInput, StageResult } from './contract.js';
import { fusedLists } from './fusion-jobs.js';
import { rankSources } from './rank-shards.js';
import { runStage } from './stage.js';

export function publishStage(input: StageInput): Promise<StageResult> {
  return runStage('publish', input, async (stage) => {
    const lists = await rankSources(stage, 'publish');
    const fused = await fusedLists(stage, 'publish', lists);
    await stage.run({
      name: 'assemble',
      kind: 'assemble',
      recipe: stage.plan.recipes.assemble,
      inputs: {
        dataset: stage.output('ingest', 'dataset'),
        catalogue: stage.output('ingest', 'catalogue'),
        users: stage.output('ingest', 'users'),
        ...(fused === null ? lists : { lists_0: fused }),
      },
      workersMax: 1,
      checkpointIntervalSteps: 0,
    });
  });
}
